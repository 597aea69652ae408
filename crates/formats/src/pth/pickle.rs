//! Pickles read as data.
//!
//! The instructions are those of protocol 2, in which torch.save writes, and the ones of later protocols that say the same.
//! Lists and dictionaries are numbers of an arena, as a pickle may put them into themselves; tuples hold what they hold, and
//! are nested no deeper than [`DEEPEST`].

use super::error::Fault;
use super::{Described, Storage};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// How deep tuples may be nested.
const DEEPEST: usize = 32;
/// How many instructions a pickle may have, each of which makes a value of some tens of bytes: a tensor takes about 40.
const MOST: usize = 1 << 24;
/// How long a name may be, how many axes a tensor may have, and how many tensors and storages there may be: a few bytes of a
/// pickle make another one of what was made before.
const LONGEST: usize = 1 << 12;
const AXES: usize = 64;
const TENSORS: usize = 1 << 20;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Text(Arc<str>),
    Tuple(Rc<Tuple>),
    List(usize),
    Dict(usize),
    /// The name of something that tensors are made of.
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

#[derive(Debug)]
pub(super) struct Tuple {
    items: Vec<Value>,
    depth: usize,
}

/// What a file may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2` and the version before it.
    Tensor,
    /// `torch._utils._rebuild_parameter`, which is its first argument.
    Parameter,
    /// `torch.Size`, a tuple.
    Size,
    Storage(Arc<str>),
}

impl Global {
    fn named(module: &str, name: &str) -> Option<Global> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Global::Tensor,
            ("torch._utils", "_rebuild_parameter") => Global::Parameter,
            ("torch", "Size") => Global::Size,
            ("torch" | "torch.storage", kind) if super::size_of(kind).is_some() => {
                Global::Storage(kind.into())
            }
            _ => return None,
        })
    }
}

/// The value that a pickle is, with everything that it refers to.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) value: Value,
    pub(super) storages: Vec<Storage>,
    pub(super) tensors: Vec<Described>,
    lists: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
}

impl Root {
    /// The entries of a dictionary whose keys are texts.
    pub(super) fn entries(&self, dict: usize) -> impl Iterator<Item = (&str, &Value)> {
        let all = self.dicts.get(dict).into_iter().flatten();
        all.filter_map(|(key, value)| match key {
            Value::Text(text) => Some((&**text, value)),
            _ => None,
        })
    }

    /// An entry of the dictionary that this is.
    pub(super) fn entry(&self, name: &str) -> Option<&Value> {
        let Value::Dict(dict) = self.value else { return None };
        self.entries(dict).find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The texts of the list that this is; none for what is no text.
    pub(super) fn texts(&self) -> Option<impl Iterator<Item = Option<Arc<str>>>> {
        let Value::List(list) = self.value else { return None };
        Some(self.lists.get(list)?.iter().map(text_of))
    }
}

/// A text, or a number that old files have in the place of one.
fn text_of(value: &Value) -> Option<Arc<str>> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string().into()),
        _ => None,
    }
}

/// The first pickle in `bytes`, and its length.
pub(super) fn read(bytes: &[u8]) -> Result<(Root, usize), Fault> {
    let root = Root {
        value: Value::None,
        storages: Vec::new(),
        tensors: Vec::new(),
        lists: Vec::new(),
        dicts: Vec::new(),
    };
    let mut reader = Reader { rest: bytes, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), root };
    let mut steps = 0;
    while !reader.step()? {
        steps += 1;
        if steps > MOST {
            return damaged("its pickle is longer than that of any model");
        }
    }
    let value = reader.pop()?;
    let length = bytes.len() - reader.rest.len();
    Ok((Root { value, ..reader.root }, length))
}

struct Reader<'a> {
    rest: &'a [u8],
    stack: Vec<Value>,
    /// How much of the stack is below each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    root: Root,
}

fn damaged<T>(why: &str) -> Result<T, Fault> {
    Err(Fault::Damaged(why.into()))
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        match self.rest.split_at_checked(count) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => damaged("its pickle is cut off"),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        match self.rest.split_first_chunk::<N>() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(*bytes)
            }
            None => damaged("its pickle is cut off"),
        }
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        self.array().map(|[byte]| byte)
    }

    /// A length of four bytes.
    fn length(&mut self) -> Result<usize, Fault> {
        usize::try_from(u32::from_le_bytes(self.array()?)).or_else(|_| damaged("a text is too long"))
    }

    fn line(&mut self) -> Result<&'a str, Fault> {
        let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') else {
            return damaged("its pickle is cut off");
        };
        let line = self.bytes(end)?;
        self.byte()?;
        std::str::from_utf8(line).or_else(|_| damaged("a name is not UTF-8"))
    }

    fn text(&mut self, length: usize) -> Result<Value, Fault> {
        match std::str::from_utf8(self.bytes(length)?) {
            Ok(text) => Ok(Value::Text(text.into())),
            Err(_) => damaged("a text is not UTF-8"),
        }
    }

    fn pop(&mut self) -> Result<Value, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(value) if self.stack.len() >= floor => Ok(value),
            _ => damaged("its pickle takes what it did not make"),
        }
    }

    fn top(&self) -> Result<&Value, Fault> {
        self.stack.last().map_or_else(|| damaged("its pickle takes what it did not make"), Ok)
    }

    /// What was made since the last mark.
    fn marked(&mut self) -> Result<Vec<Value>, Fault> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => damaged("its pickle has no mark where it needs one"),
        }
    }

    fn tuple(&mut self, items: Vec<Value>) -> Result<Value, Fault> {
        let depth = |value: &Value| if let Value::Tuple(tuple) = value { tuple.depth } else { 0 };
        let depth = 1 + items.iter().map(depth).max().unwrap_or(0);
        match depth > DEEPEST {
            true => damaged("its tuples are nested too deep"),
            false => Ok(Value::Tuple(Rc::new(Tuple { items, depth }))),
        }
    }

    /// The last so many values as a tuple.
    fn tuple_of(&mut self, count: usize) -> Result<Value, Fault> {
        let mut items: Vec<Value> = (0..count).map(|_| self.pop()).collect::<Result<_, _>>()?;
        items.reverse();
        self.tuple(items)
    }

    fn list(&mut self, items: Vec<Value>) -> Value {
        self.root.lists.push(items);
        Value::List(self.root.lists.len() - 1)
    }

    fn dict(&mut self) -> Value {
        self.root.dicts.push(Vec::new());
        Value::Dict(self.root.dicts.len() - 1)
    }

    /// Carries out one instruction; `true` after the last one. Their numbers are those of Python's `pickletools`.
    fn step(&mut self) -> Result<bool, Fault> {
        let value = match self.byte()? {
            b'.' => return Ok(true),
            0x80 => match self.byte()? {
                2..=5 => return Ok(false),
                other => {
                    return Err(Fault::Damaged(format!("its pickle is of protocol {other}, not 2 to 5")));
                }
            },
            // A frame: eight bytes of length.
            0x95 => {
                self.array::<8>()?;
                return Ok(false);
            }
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(false);
            }
            scalar @ (b'N' | 0x88 | 0x89 | b'K' | b'M' | b'J' | 0x8a | b'G') => self.scalar(scalar)?,
            b'X' => {
                let length = self.length()?;
                self.text(length)?
            }
            0x8c | b'U' => {
                let length = self.byte()?.into();
                self.text(length)?
            }
            b']' => self.list(Vec::new()),
            b'}' => self.dict(),
            b')' => self.tuple(Vec::new())?,
            0x85 => self.tuple_of(1)?,
            0x86 => self.tuple_of(2)?,
            0x87 => self.tuple_of(3)?,
            b't' => {
                let items = self.marked()?;
                self.tuple(items)?
            }
            b'l' => {
                let items = self.marked()?;
                self.list(items)
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                named(module, name)?
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => named(&module, &name)?,
                _ => return damaged("a name is no text"),
            },
            b'Q' => self.persistent()?,
            b'R' | 0x81 => self.call()?,
            b'h' => self.remembered(self.rest.first().map(|&at| at.into()), 1)?,
            b'j' => self.remembered(self.rest.first_chunk().map(|&at| u32::from_le_bytes(at)), 4)?,
            other => return self.change(other).map(|()| false),
        };
        self.stack.push(value);
        Ok(false)
    }

    /// The instructions that say a number or a truth value, or none.
    fn scalar(&mut self, instruction: u8) -> Result<Value, Fault> {
        Ok(match instruction {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            b'G' => self.array::<8>().map(|_| Value::Float)?,
            _ => self.long()?,
        })
    }

    /// The instructions that leave nothing new.
    fn change(&mut self, instruction: u8) -> Result<(), Fault> {
        match instruction {
            b'q' => {
                let at = self.byte()?.into();
                self.remember(at)
            }
            b'r' => {
                let at = u32::from_le_bytes(self.array()?);
                self.remember(at)
            }
            0x94 => match u32::try_from(self.memo.len()) {
                Ok(at) => self.remember(at),
                Err(_) => damaged("its pickle remembers too much"),
            },
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])
            }
            b'e' => {
                let items = self.marked()?;
                self.append(items)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])
            }
            b'u' => {
                let items = self.marked()?;
                self.set(items)
            }
            // What an object has beside its items: an OrderedDict of torch keeps versions there.
            b'b' => match (self.pop()?, self.top()?) {
                (_, Value::Dict(_)) => Ok(()),
                _ => damaged("it gives a state to what has none"),
            },
            b'0' => self.pop().map(drop),
            b'1' => self.marked().map(drop),
            b'2' => {
                let top = self.top()?.clone();
                self.stack.push(top);
                Ok(())
            }
            other => Err(Fault::Damaged(format!(
                "its pickle has the instruction {other:#04x}, which tensors are not written with"
            ))),
        }
    }

    /// A whole number of up to eight bytes.
    fn long(&mut self) -> Result<Value, Fault> {
        let length = self.byte()?.into();
        let bytes = self.bytes(length)?;
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        match wide.get_mut(..length) {
            Some(low) => low.copy_from_slice(bytes),
            None => return damaged("a number has more than eight bytes"),
        }
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn remember(&mut self, at: u32) -> Result<(), Fault> {
        let value = self.top()?.clone();
        self.memo.insert(at, value);
        Ok(())
    }

    fn remembered(&mut self, at: Option<u32>, bytes: usize) -> Result<Value, Fault> {
        self.bytes(bytes)?;
        match at.and_then(|at| self.memo.get(&at)) {
            Some(value) => Ok(value.clone()),
            None => damaged("its pickle takes what it did not make"),
        }
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), Fault> {
        match self.top()? {
            &Value::List(list) => {
                self.root.lists.get_mut(list).into_iter().for_each(|list| list.extend(items.iter().cloned()));
                Ok(())
            }
            _ => damaged("it appends to what is no list"),
        }
    }

    fn set(&mut self, items: Vec<Value>) -> Result<(), Fault> {
        let &Value::Dict(dict) = self.top()? else {
            return damaged("it sets an entry of what is no dictionary");
        };
        if items.iter().step_by(2).any(|key| matches!(key, Value::Text(text) if text.len() > LONGEST)) {
            return damaged("a name in it is longer than that of any tensor");
        }
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return damaged("an entry has no value");
        }
        if let Some(dict) = self.root.dicts.get_mut(dict) {
            dict.extend(pairs.iter().map(|[key, value]| (key.clone(), value.clone())));
        }
        Ok(())
    }

    /// A reference to a storage.
    fn persistent(&mut self) -> Result<Value, Fault> {
        let Value::Tuple(tuple) = self.pop()? else { return damaged("a storage is described by no tuple") };
        let [Value::Text(what), Value::Global(Global::Storage(kind)), key, _, _, rest @ ..] =
            &tuple.items[..]
        else {
            return damaged("a storage is described in another way than torch does");
        };
        if &**what != "storage" || !matches!(rest, [] | [Value::None]) {
            return damaged("a storage is a view of another one, as only files of torch 0.1 have it");
        }
        let Some(key) = text_of(key) else { return damaged("a storage has no name") };
        if self.root.storages.len() >= TENSORS {
            return damaged("it has more storages than any model");
        }
        self.root.storages.push(Storage { key, kind: kind.clone() });
        Ok(Value::Storage(self.root.storages.len() - 1))
    }

    /// What a name makes of arguments. No name is called: each stands for one of these.
    fn call(&mut self) -> Result<Value, Fault> {
        let (arguments, name) = (self.pop()?, self.pop()?);
        let (Value::Tuple(arguments), Value::Global(name)) = (arguments, name) else {
            return damaged("it calls what has no name");
        };
        match (name, &arguments.items[..]) {
            (Global::OrderedDict, []) => Ok(self.dict()),
            (Global::Parameter, [tensor @ Value::Tensor(_), ..]) => Ok(tensor.clone()),
            (Global::Size, [tuple @ Value::Tuple(_)]) => Ok(tuple.clone()),
            (
                Global::Tensor,
                [Value::Storage(storage), Value::Int(offset), Value::Tuple(shape), Value::Tuple(strides), ..],
            ) => self.tensor(*storage, *offset, shape, strides),
            (name, _) => {
                Err(Fault::Damaged(format!("its arguments of {name:?} are not those that torch writes")))
            }
        }
    }

    fn tensor(
        &mut self,
        storage: usize,
        offset: i64,
        shape: &Tuple,
        strides: &Tuple,
    ) -> Result<Value, Fault> {
        let numbers = |tuple: &Tuple| -> Option<Vec<u64>> {
            let number = |value: &Value| match value {
                Value::Int(number) => u64::try_from(*number).ok(),
                _ => None,
            };
            tuple.items.iter().map(number).collect()
        };
        if shape.items.len().max(strides.items.len()) > AXES || self.root.tensors.len() >= TENSORS {
            return damaged("it has more tensors than any model, or one with more than 64 axes");
        }
        let storage = self.root.storages.get(storage).cloned();
        let (Some(storage), Some(shape), Some(strides), Ok(offset)) =
            (storage, numbers(shape), numbers(strides), u64::try_from(offset))
        else {
            return damaged("a tensor has extents that are no numbers");
        };
        self.root.tensors.push(Described { storage, offset, shape, strides });
        Ok(Value::Tensor(self.root.tensors.len() - 1))
    }
}

/// Something that a file names, if tensors are made of it.
fn named(module: &str, name: &str) -> Result<Value, Fault> {
    let global = Global::named(module, name);
    global.map(Value::Global).ok_or_else(|| Fault::Refused(format!("{module}.{name}")))
}
