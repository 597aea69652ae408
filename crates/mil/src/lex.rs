//! Tokens, with the place of each.

use crate::parse::ParseError;

/// One token of the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    /// A word: keyword, type, op or name.
    Word(&'a str),
    /// What starts like a number, with its sign; whether it is one depends on the type it stands in.
    Number(&'a str),
    /// A string without its quotes, escapes resolved.
    Str(String),
    /// One of `( ) [ ] { } < > , ; =`.
    Punct(char),
    /// `->`.
    Arrow,
    /// The end of the text.
    End,
}

/// Where a token starts, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub line: usize,
    pub column: usize,
}

/// The rest of the text.
pub(crate) struct Lexer<'a> {
    rest: &'a str,
    place: Place,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { rest: text, place: Place { line: 1, column: 1 } }
    }

    /// The next token and its place.
    pub(crate) fn token(&mut self) -> Result<(Token<'a>, Place), ParseError> {
        let before = self.place;
        self.take_while(char::is_whitespace);
        let place = self.place;
        let token = match self.peek() {
            // The end is where the last token ends: no line may follow it.
            None => return Ok((Token::End, before)),
            Some('"') => Token::Str(self.string()?),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => Token::Word(self.take_while(is_word)),
            Some(c) if c.is_ascii_digit() => Token::Number(self.number()),
            Some('-') if self.rest.starts_with("->") => {
                self.take(2);
                Token::Arrow
            }
            Some('-') => Token::Number(self.number()),
            Some(c) if "()[]{}<>,;=".contains(c) => {
                self.take(1);
                Token::Punct(c)
            }
            Some(c) => return Err(ParseError::new(place, "a token of MIL", format!("{c:?}"))),
        };
        Ok((token, place))
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// A sign, then digits, letters and dots, and a sign behind an exponent's letter.
    fn number(&mut self) -> &'a str {
        let hex = self.rest.trim_start_matches('-').starts_with("0x");
        let mut before = '\0';
        self.take_while(|c| {
            let exponent = if hex { matches!(before, 'p' | 'P') } else { matches!(before, 'e' | 'E') };
            let first = before == '\0';
            before = c;
            c.is_ascii_alphanumeric()
                || c == '.'
                || (c == '-' && first)
                || (matches!(c, '+' | '-') && exponent)
        })
    }

    fn string(&mut self) -> Result<String, ParseError> {
        let start = self.place;
        self.take(1);
        let mut value = String::new();
        loop {
            value.push_str(self.take_while(|c| c != '"' && c != '\\'));
            let place = self.place;
            let mut chars = self.rest.chars();
            match (chars.next(), chars.next()) {
                (Some('"'), _) => {
                    self.take(1);
                    return Ok(value);
                }
                (Some(_), Some(c @ ('"' | '\\'))) => value.push(c),
                (Some(_), Some('n')) => value.push('\n'),
                (Some(_), Some(c)) => {
                    let expected = r#"an escape, one of \" \\ \n"#;
                    return Err(ParseError::new(place, expected, format!("a backslash and {c:?}")));
                }
                _ => return Err(ParseError::new(start, "a closing quote", "a string without an end")),
            }
            self.take(2);
        }
    }

    /// Takes this many characters.
    fn take(&mut self, count: usize) {
        let mut left = count;
        self.take_while(|_| {
            let go = left > 0;
            left = left.saturating_sub(1);
            go
        });
    }

    /// Takes the longest start of the text whose characters all pass.
    fn take_while(&mut self, mut pass: impl FnMut(char) -> bool) -> &'a str {
        let len: usize = self.rest.chars().take_while(|&c| pass(c)).map(char::len_utf8).sum();
        let Some((taken, rest)) = self.rest.split_at_checked(len) else { return "" };
        for c in taken.chars() {
            if c == '\n' {
                self.place = Place { line: self.place.line + 1, column: 1 };
            } else {
                self.place.column += 1;
            }
        }
        self.rest = rest;
        taken
    }
}

/// Whether a character may stand inside a word.
pub(crate) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
