//! What an op is called, takes and says of itself: the part of a declaration that needs no instance.

use crate::ir::attr::Attr;

/// What an op is called and how it is documented.
#[derive(Debug)]
pub struct Info {
    /// The name in graph text and messages.
    pub name: &'static str,
    /// The name of its method.
    pub method: &'static str,
    /// Names of the inputs. A last one ending in `?` may be left out; one ending in `..` repeats.
    pub inputs: &'static [&'static str],
    /// What ANEForge calls them, where its nodes show weights among their attributes.
    pub shown: &'static [&'static str],
    /// The attributes.
    pub attrs: &'static [AttrInfo],
    /// The reference page, in Markdown.
    pub doc: &'static str,
}

/// An attribute's part of the reference page.
#[derive(Debug)]
pub struct AttrInfo {
    /// Its name.
    pub name: &'static str,
    /// Its type's name.
    pub ty: &'static str,
    /// Its default as written in the declaration, if it has one.
    pub default: Option<&'static str>,
    /// What it means.
    pub doc: &'static str,
    /// Whose axes it counts, if it counts axes.
    pub axes: Option<Axes>,
}

/// Which value's axes an attribute counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axes {
    /// The first operand's.
    Operand,
    /// The result's, of which it names the new ones.
    Result,
}

impl Axes {
    /// Counts an attribute's axes from the first, as MIL does, where the first operand has `rank`. Those out of range
    /// stay as they are.
    pub fn from_first(self, attr: &mut Attr, rank: usize) {
        let axes: &mut [i64] = match attr {
            Attr::Int(axis) => std::slice::from_mut(axis),
            Attr::Ints(axes) => axes,
            _ => return,
        };
        let rank = match self {
            Axes::Operand => rank,
            Axes::Result => rank + axes.len(),
        } as i64;
        axes.iter_mut().filter(|axis| (-rank..0).contains(*axis)).for_each(|axis| *axis += rank);
    }
}

/// What begins the last line of a page that says how Python spells the op.
const IN_PYTHON: &str = "\n In Python, `";

impl Info {
    /// The reference page but for what [`Info::python`] gives.
    pub fn page(&self) -> &'static str {
        self.doc.rsplit_once(IN_PYTHON).map_or(self.doc, |(page, _)| page)
    }

    /// How Python spells the op, where that does not follow from the declaration.
    pub fn python(&self) -> Option<&'static str> {
        self.doc.rsplit_once(IN_PYTHON)?.1.trim_end().strip_suffix("`.")
    }

    /// The least and the greatest number of inputs.
    pub fn arity(&self) -> (usize, usize) {
        let n = self.inputs.len();
        match self.inputs.last() {
            Some(last) if last.ends_with("..") => (n, usize::MAX),
            _ => (n - self.inputs.iter().filter(|i| i.ends_with('?')).count(), n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::op::find;

    #[test]
    fn axes_are_counted_from_the_first() {
        let counted = |axes: Axes, mut attr: Attr| {
            axes.from_first(&mut attr, 3);
            attr
        };
        assert_eq!(counted(Axes::Operand, Attr::Int(-1)), Attr::Int(2));
        assert_eq!(counted(Axes::Operand, Attr::Ints(vec![-3, 1, -4])), Attr::Ints(vec![0, 1, -4]));
        assert_eq!(counted(Axes::Result, Attr::Int(-1)), Attr::Int(3));
        assert_eq!(counted(Axes::Result, Attr::Ints(vec![-1, -5])), Attr::Ints(vec![4, 0]));
        assert_eq!(counted(Axes::Operand, Attr::Bool(true)), Attr::Bool(true));
    }

    #[test]
    fn pages_end_before_what_python_writes() {
        let info = |name| &find(name).unwrap().info;
        assert_eq!(info("bmm").python(), Some("x @ y"));
        assert!(!info("bmm").page().contains("Python"));
        assert_eq!((info("relu").python(), info("relu").page()), (None, info("relu").doc));
        assert_eq!(info("matmul").shown, ["x", "wt", "bias?"]);
    }
}
