//! Compiled programs of one model, by the shape they are for.

use aneforge::Session;

/// Programs that are loaded, one per shape; of more than can be kept, the one unused for longest goes.
///
/// ```
/// use aneforge::{CompileOptions, RunError, Session, Shape, Var, compile, device};
/// use aneforge_models::programs::Programs;
/// use aneforge_models::resnet::{Depth, resnet};
/// use aneforge_models::weights::random_weights;
///
/// let host = device::named("host")?;
/// let mut programs = Programs::new(2);
/// for size in [32, 64, 32] {
///     let session = programs.get(size, || {
///         let image = Var::input(Shape::new(&[1, 3, size, size])?);
///         let logits = resnet(Depth::D18, &image, 10, &mut random_weights(1))?;
///         let plan = compile(&[logits], &CompileOptions::default())?;
///         Ok::<_, Box<dyn std::error::Error>>(Session::new(plan, &host)?)
///     })?;
///     assert_eq!(session.plan().feeds[0].ty.shape.dims(), [1, 3, size, size]);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Programs<K> {
    most: usize,
    /// The one used last at the end.
    loaded: Vec<(K, Session)>,
}

impl<K: PartialEq> Programs<K> {
    /// At most so many, and at least one.
    pub fn new(most: usize) -> Programs<K> {
        Programs { most: most.max(1), loaded: Vec::new() }
    }

    /// The program for this shape, made if it is not loaded.
    pub fn get<E>(&mut self, shape: K, make: impl FnOnce() -> Result<Session, E>) -> Result<&mut Session, E> {
        if let Some(at) = self.loaded.iter().position(|(known, _)| *known == shape) {
            self.loaded[at..].rotate_left(1);
        } else {
            // It goes first, so that there is no more memory in use than for the most.
            if self.loaded.len() >= self.most {
                self.loaded.remove(0);
            }
            self.loaded.push((shape, make()?));
        }
        let (_, session) = self.loaded.last_mut().expect("invariant: one was found or pushed");
        Ok(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aneforge::{CompileOptions, Shape, Var, compile, device};

    #[test]
    fn the_one_unused_for_longest_goes() {
        let mut programs = Programs::new(2);
        let mut made = Vec::new();
        for n in [1, 2, 1, 3, 1, 2] {
            let make = || {
                made.push(n);
                let y = Var::input(Shape::new(&[n]).unwrap()).relu();
                let plan = compile(&[y], &CompileOptions::default()).unwrap();
                Session::new(plan, device::named("host").unwrap())
            };
            assert_eq!(programs.get(n, make).unwrap().output(0).len(), n);
        }
        assert_eq!(made, [1, 2, 3, 2]);
        assert_eq!(programs.get(7, || Err("cannot be made")).unwrap_err(), "cannot be made");
        assert!(programs.get(2, || Err("is loaded")).is_ok());
    }
}
