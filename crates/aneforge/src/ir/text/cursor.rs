use crate::ir::attr::Attr;
use crate::ir::types::TensorType;
use aneforge_tensor::{DType, Shape};

/// What is left of a line.
pub(super) struct Cursor<'a> {
    pub(super) rest: &'a str,
}

impl<'a> Cursor<'a> {
    pub(super) fn eat(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    pub(super) fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(format!("expected `{token}`, found `{}`", self.found())) }
    }

    pub(super) fn found(&self) -> String {
        let text: String = self.rest.trim_start().chars().take(20).collect();
        if text.is_empty() { "the end of the line".into() } else { text }
    }

    pub(super) fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let text = self.rest.trim_start();
        let end = text.find(|c| !keep(c)).unwrap_or(text.len());
        let (taken, rest) = text.split_at(end);
        self.rest = rest;
        taken
    }

    pub(super) fn take_rest(&mut self) -> &'a str {
        std::mem::take(&mut self.rest)
    }

    pub(super) fn word(&mut self) -> Result<&'a str, String> {
        let found = self.found();
        let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        if word.is_empty() { Err(format!("expected a name, found `{found}`")) } else { Ok(word) }
    }

    pub(super) fn number<T: std::str::FromStr>(&mut self) -> Result<T, String> {
        let text = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'));
        text.parse().map_err(|_| format!("expected a number, found `{text}`"))
    }

    pub(super) fn ty(&mut self) -> Result<TensorType, String> {
        let name = self.word()?;
        let dtype = DType::from_name(name).ok_or_else(|| format!("`{name}` is not an element type"))?;
        let extents = self.ints()?;
        let extents: Result<Vec<usize>, _> = extents.into_iter().map(usize::try_from).collect();
        let extents = extents.map_err(|_| "a size is negative".to_owned())?;
        Ok(TensorType { dtype, shape: Shape::new(&extents).map_err(|e| e.to_string())? })
    }

    pub(super) fn ints(&mut self) -> Result<Vec<i64>, String> {
        self.expect("[")?;
        let mut out = Vec::new();
        while !self.eat("]") {
            out.push(self.number()?);
            if !self.eat(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(out)
    }

    pub(super) fn attr(&mut self) -> Result<Attr, String> {
        let text = self.rest.trim_start();
        if text.starts_with('[') {
            return Ok(Attr::Ints(self.ints()?));
        }
        if self.eat("\"") {
            let word = self.take_while(|c| c != '"').to_owned();
            self.expect("\"")?;
            return Ok(Attr::Str(word));
        }
        let word = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_'));
        match word {
            "true" => Ok(Attr::Bool(true)),
            "false" => Ok(Attr::Bool(false)),
            _ if !word.contains('.') && word.parse::<i64>().is_ok() => {
                Ok(Attr::Int(word.parse().map_err(|_| format!("`{word}` is not an integer"))?))
            }
            _ => word.parse().map(Attr::Real).map_err(|_| format!("`{word}` is not an attribute")),
        }
    }

    pub(super) fn end(&self) -> Result<(), String> {
        if self.rest.trim().is_empty() {
            Ok(())
        } else {
            Err(format!("expected the end of the line, found `{}`", self.found()))
        }
    }
}
