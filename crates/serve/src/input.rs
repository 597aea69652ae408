//! What bodies may hold where texts are asked for, read without a copy in between: a body of a megabyte takes few.

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// Elements of a list that are kept: more than any limit allows. What follows is counted.
const KEPT: usize = 1 << 16;

/// Bytes of a text at most: far more than any model reads, and as much as some tokenizers take a hundred times of in memory.
pub(crate) const MOST_BYTES: usize = 1 << 20;

/// The first text that is too long to be read at all.
pub(crate) fn longest<T: AsRef<str>>(texts: &[T]) -> Option<usize> {
    texts.iter().position(|text| text.as_ref().len() > MOST_BYTES)
}

/// The `input` of a request for embeddings.
#[derive(Debug, PartialEq)]
pub(crate) enum Input {
    Texts(Vec<String>),
    /// Each by the ids of the client's tokenizer.
    Ids(Vec<Vec<u32>>),
    /// More than are kept.
    Many(usize),
}

impl Input {
    pub fn len(&self) -> usize {
        match self {
            Input::Texts(texts) => texts.len(),
            Input::Ids(ids) => ids.len(),
            Input::Many(count) => *count,
        }
    }
}

/// An element of a list.
enum Element {
    Text(String),
    Id(u32),
    Ids(Vec<u32>),
}

/// A token id.
struct Id(u32);

const ID: &str = "a token id, a whole number from 0 on";

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Input, D::Error> {
        from.deserialize_any(Whole)
    }
}

struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a list of texts, a list of token ids or a list of such lists")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Input, E> {
        Ok(Input::Texts(vec![text.to_owned()]))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Input, E> {
        Ok(Input::Texts(vec![text]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Input, A::Error> {
        let mixed =
            || A::Error::custom("a list of one kind was expected: texts, token ids, or lists of token ids");
        let (mut texts, mut ids, mut lists) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(element) = list.next_element::<Element>()? {
            match element {
                Element::Text(text) => texts.push(text),
                // Ids of one text, which may be many.
                Element::Id(id) => ids.push(id),
                Element::Ids(list) => lists.push(list),
            }
            if [texts.is_empty(), ids.is_empty(), lists.is_empty()].iter().filter(|empty| !**empty).count()
                > 1
            {
                return Err(mixed());
            }
            let count = texts.len().max(lists.len());
            if count == KEPT {
                return Ok(Input::Many(rest(list, count)?));
            }
        }
        Ok(match (ids.is_empty(), lists.is_empty()) {
            (false, _) => Input::Ids(vec![ids]),
            (_, false) => Input::Ids(lists),
            _ => Input::Texts(texts),
        })
    }
}

/// How many elements there are with those that were not looked at.
fn rest<'de, A: SeqAccess<'de>>(mut list: A, mut count: usize) -> Result<usize, A::Error> {
    while list.next_element::<IgnoredAny>()?.is_some() {
        count += 1;
    }
    Ok(count)
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Element, D::Error> {
        from.deserialize_any(OfList)
    }
}

struct OfList;

impl<'de> Visitor<'de> for OfList {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text, {ID}, or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
        Ok(Element::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Element, E> {
        Ok(Element::Text(text))
    }

    fn visit_u64<E: Error>(self, id: u64) -> Result<Element, E> {
        whole(id).map(Element::Id)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Element, A::Error> {
        let mut ids = Vec::new();
        while let Some(Id(id)) = list.next_element()? {
            ids.push(id);
        }
        Ok(Element::Ids(ids))
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Id, D::Error> {
        struct One;
        impl Visitor<'_> for One {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ID)
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<Id, E> {
                whole(id).map(Id)
            }
        }
        from.deserialize_any(One)
    }
}

fn whole<E: Error>(id: u64) -> Result<u32, E> {
    u32::try_from(id).map_err(|_| E::custom(format!("{id} is no token id; the greatest is {}", u32::MAX)))
}

/// The `documents` of a request for ranks: texts, or objects with a `text`.
#[derive(Debug, PartialEq)]
pub(crate) struct Documents {
    pub texts: Vec<String>,
    /// With those that were not kept.
    pub count: usize,
}

impl<'de> Deserialize<'de> for Documents {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Documents, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Documents;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts, or of objects with a `text`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Documents, A::Error> {
                let mut texts = Vec::new();
                while let Some(Document(text)) = list.next_element()? {
                    texts.push(text);
                    if texts.len() == KEPT {
                        let count = rest(list, KEPT)?;
                        return Ok(Documents { texts, count });
                    }
                }
                let count = texts.len();
                Ok(Documents { texts, count })
            }
        }
        from.deserialize_any(List)
    }
}

struct Document(String);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Document, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or an object with a `text`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Document, E> {
                Ok(Document(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Document, E> {
                Ok(Document(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let mut text = None;
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "text" => text = Some(map.next_value()?),
                        _ => _ = map.next_value::<IgnoredAny>()?,
                    }
                }
                text.map(Document).ok_or_else(|| A::Error::missing_field("text"))
            }
        }
        from.deserialize_any(One)
    }
}

/// Whether what is too long is cut off, as a request asks: `true` or `"END"`, `false` or `"NONE"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truncate(pub bool);

impl<'de> Deserialize<'de> for Truncate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Truncate, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = Truncate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, \"END\" or \"NONE\"")
            }

            fn visit_bool<E: Error>(self, cut: bool) -> Result<Truncate, E> {
                Ok(Truncate(cut))
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Truncate, E> {
                match word.to_ascii_uppercase().as_str() {
                    "END" => Ok(Truncate(true)),
                    "NONE" => Ok(Truncate(false)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(word), &self)),
                }
            }
        }
        from.deserialize_any(Word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(json: &str) -> Result<Input, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn every_form_of_input_is_read() {
        let texts = |texts: &[&str]| Ok(Input::Texts(texts.iter().map(|text| (*text).to_owned()).collect()));
        assert_eq!(input(r#""a\nb""#), texts(&["a\nb"]));
        assert_eq!(input(r#"["a", "b\u00e9"]"#), texts(&["a", "b\u{e9}"]));
        assert_eq!(input("[]"), texts(&[]));
        assert_eq!(input("[1, 2]"), Ok(Input::Ids(vec![vec![1, 2]])));
        assert_eq!(input("[[1, 2], []]"), Ok(Input::Ids(vec![vec![1, 2], vec![]])));
        let many = format!("[{}\"\"]", "\"\",".repeat(99_999));
        assert_eq!(input(&many), Ok(Input::Many(100_000)));
    }

    #[test]
    fn other_forms_say_what_is_wanted() {
        for (json, said) in [
            ("1", "a text, a list of texts"),
            ("null", "a text, a list of texts"),
            ("{}", "a text, a list of texts"),
            (r#"["a", 1]"#, "a list of one kind"),
            (r#"[1, [1]]"#, "a list of one kind"),
            (r#"[["a"]]"#, "a token id"),
            ("[1.5]", "a token id"),
            ("[-1]", "a token id"),
            ("[[-1]]", "a token id"),
            ("[4294967296]", "the greatest is 4294967295"),
            ("[1e400]", "number out of range"),
            (&"[".repeat(1000), "EOF"),
        ] {
            let got = input(json).unwrap_err();
            assert!(got.contains(said) || got.contains("a whole number"), "{json}: {got}");
        }
    }

    #[test]
    fn documents_are_texts_or_objects_with_one() {
        let read = |json: &str| serde_json::from_str::<Documents>(json).map_err(|error| error.to_string());
        let got = read(r#"["a", {"id": [1], "text": "b"}]"#).unwrap();
        assert_eq!((got.texts, got.count), (vec!["a".to_owned(), "b".to_owned()], 2));
        assert!(read(r#"[{"title": "a"}]"#).unwrap_err().contains("missing field `text`"));
        assert!(read(r#""a""#).unwrap_err().contains("a list of texts"));
        let many = format!("[{}\"\"]", "\"\",".repeat(99_999));
        assert_eq!(read(&many).unwrap().count, 100_000);
    }

    #[test]
    fn cutting_is_asked_for_in_both_ways() {
        let read = |json: &str| serde_json::from_str::<Truncate>(json).map_err(|error| error.to_string());
        assert_eq!(["true", "\"END\"", "\"end\""].map(|json| read(json).unwrap()), [Truncate(true); 3]);
        assert_eq!(["false", "\"NONE\""].map(|json| read(json).unwrap()), [Truncate(false); 2]);
        assert!(read("\"START\"").unwrap_err().contains("\"END\" or \"NONE\""));
    }
}
