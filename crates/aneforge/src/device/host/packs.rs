//! Packed weights, shared by every session of an engine whose plans hold the same ones.

use aneforge_kernels::conv::PackedConv;
use aneforge_kernels::gemm::PackedB;
use aneforge_tensor::Weight;
use aneforge_tensor::weight::Identity;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Weights in the form a kernel reads, and what they are made from.
pub(super) struct Packed<T> {
    pub weights: T,
    /// Held so that nothing else can come to lie at their addresses while the key names them.
    _sources: Vec<Weight>,
}

/// By the identities of what is packed as one, and in how many groups.
type Table<T> = Mutex<HashMap<(Vec<Identity>, usize), Weak<Packed<T>>>>;

/// What an engine has packed and some session still uses.
#[derive(Default)]
pub(super) struct Packs {
    rows: Table<PackedB>,
    convs: Table<PackedConv>,
}

impl Packs {
    /// The weight of a linear layer, or those of several that are one.
    pub(super) fn rows(&self, sources: &[&Weight], pack: impl FnOnce() -> PackedB) -> Arc<Packed<PackedB>> {
        share(&self.rows, sources, 1, pack)
    }

    /// The weight of a convolution in this many groups.
    pub(super) fn conv(
        &self,
        source: &Weight,
        groups: usize,
        pack: impl FnOnce() -> PackedConv,
    ) -> Arc<Packed<PackedConv>> {
        share(&self.convs, &[source], groups, pack)
    }
}

fn share<T>(
    table: &Table<T>,
    sources: &[&Weight],
    groups: usize,
    pack: impl FnOnce() -> T,
) -> Arc<Packed<T>> {
    let key = (sources.iter().map(|source| source.identity()).collect(), groups);
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(packed) = table.get(&key).and_then(Weak::upgrade) {
        return packed;
    }
    table.retain(|_, packed| packed.strong_count() > 0);
    let packed = Arc::new(Packed { weights: pack(), _sources: sources.iter().copied().cloned().collect() });
    sources.iter().flat_map(|source| source.parts()).for_each(|part| part.bytes().release());
    table.insert(key, Arc::downgrade(&packed));
    packed
}

impl fmt::Debug for Packs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Packs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aneforge_tensor::{Bytes, DType, Owner, Shape, Tensor};
    use std::ops::Range;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn weights_are_packed_once_while_they_are_used() {
        let packs = Packs::default();
        let shape = Shape::new(&[2, 3]).unwrap();
        let source = Tensor::from_slice(shape, &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let source = Weight::from(source);
        let pack = || PackedB::from_nk(source.as_slice::<f32>().unwrap(), 2, 3);
        let first = packs.rows(&[&source], pack);
        let second = packs.rows(&[&source.clone()], || unreachable!("packed already"));
        assert!(Arc::ptr_eq(&first, &second));
        drop((first, second));
        let mut again = false;
        let first = packs.rows(&[&source], || {
            again = true;
            pack()
        });
        assert!(again);
        // Another weight displaces what nobody uses, and nothing else.
        let other = Weight::from(Tensor::from_slice(shape, &[6.0f32; 6]).unwrap());
        let second = packs.rows(&[&other], pack);
        assert!(Arc::ptr_eq(&first, &packs.rows(&[&source], || unreachable!("packed already"))));
        drop((first, second));
        let _third = packs.rows(&[&source], pack);
        assert_eq!(packs.rows.lock().unwrap().len(), 1);
    }

    #[test]
    fn what_is_packed_need_not_stay_in_memory() {
        struct Counted(Arc<AtomicUsize>);
        impl Owner for Counted {
            fn bytes(&self) -> &[u8] {
                &[0; 12]
            }
            fn release(&self, range: Range<usize>) {
                self.0.fetch_add(range.len(), Ordering::Relaxed);
            }
        }
        let released = Arc::new(AtomicUsize::new(0));
        let bytes = Bytes::owned(Counted(released.clone()));
        let tensor = Tensor::new(DType::F16, Shape::new(&[2, 3]).unwrap(), bytes).unwrap();
        let packs = Packs::default();
        let pack = || PackedB::from_nk(&tensor.to_f16(), 2, 3);
        let _packed = packs.rows(&[&tensor.clone().into()], pack);
        assert_eq!(released.load(Ordering::Relaxed), 12);
    }
}
