//! Text to [`Program`], for text that nobody vouches for.
//!
//! White space is not significant, and every spelling that the reference calls accepted is: the three zeros of
//! fp16, hexadecimal and decimal numbers, immediates where the emitter writes named constants. Of the spellings
//! that are only documented, nested fp16 bit patterns and `const(…)` around an immediate are read.
//!
//! Nothing recurses, and memory is proportional to the text.

use half::f16;
use thiserror::Error;

use crate::lex::{Lexer, Place, Token};
use crate::number::{float, float32};
use crate::program::{
    Arg, DType, Function, Literal, PROGRAM_VERSION, Port, Program, Stmt, TensorValue, Type, round_to_f16,
};

/// Where a text stops being MIL. The fault is the text's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: expected {expected}, found {found}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What would have been right.
    pub expected: String,
    /// What stands there, shortened.
    pub found: String,
}

/// Characters of a token that a message repeats.
const FOUND_LEN: usize = 40;

impl ParseError {
    pub(crate) fn new(place: Place, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { line: place.line, column: place.column, expected: expected.into(), found: found.into() }
    }
}

/// Reads a whole program.
///
/// # Errors
/// The first place where the text is not MIL. That the program makes sense is for `verify` to say.
///
/// ```
/// let error = aneforge_mil::parse("program(1.3)\n[buildinfo]").unwrap_err();
/// assert_eq!(error.to_string(), "line 2, column 2: expected `buildInfo`, found `buildinfo`");
/// ```
pub fn parse(text: &str) -> Result<Program, ParseError> {
    let mut parser = Parser::new(text)?;
    let program = parser.program()?;
    parser.end()?;
    Ok(program)
}

/// Reads one statement, without what it refers to.
///
/// # Errors
/// The first place where the text is not a statement.
///
/// ```
/// let stmt = aneforge_mil::parse_stmt(r#"bool kd=const()[name=string("kd"),val=bool(true)];"#)?;
/// assert_eq!(stmt.to_string(), r#"bool kd = const()[name = string("kd"), val = bool(true)];"#);
/// # Ok::<(), aneforge_mil::ParseError>(())
/// ```
pub fn parse_stmt(text: &str) -> Result<Stmt, ParseError> {
    let mut parser = Parser::new(text)?;
    let stmt = parser.stmt()?;
    parser.end()?;
    Ok(stmt)
}

/// The text with one token of lookahead.
struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token<'a>,
    place: Place,
}

type Result<T, E = ParseError> = std::result::Result<T, E>;

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self> {
        let mut lexer = Lexer::new(text);
        let (token, place) = lexer.token()?;
        Ok(Self { lexer, token, place })
    }

    fn program(&mut self) -> Result<Program> {
        self.keyword("program")?;
        self.punct('(')?;
        self.exactly(PROGRAM_VERSION)?;
        self.punct(')')?;
        self.punct('[')?;
        self.keyword("buildInfo")?;
        self.punct('=')?;
        self.keyword("dict")?;
        self.punct('<')?;
        self.keyword("string")?;
        self.punct(',')?;
        self.keyword("string")?;
        self.punct('>')?;
        self.punct('(')?;
        self.punct('{')?;
        let build_info = self.list('}', Self::pair)?;
        self.punct(')')?;
        self.punct(']')?;
        self.punct('{')?;
        let mut functions = Vec::new();
        while !self.eat('}')? {
            functions.push(self.function()?);
        }
        Ok(Program { build_info, functions })
    }

    fn pair(&mut self) -> Result<(String, String)> {
        self.punct('{')?;
        let key = self.quoted()?;
        self.punct(',')?;
        let value = self.quoted()?;
        self.punct('}')?;
        Ok((key, value))
    }

    fn function(&mut self) -> Result<Function> {
        self.keyword("func")?;
        let name = self.word("a function name")?.to_owned();
        self.punct('<')?;
        let opset = self.word("an opset")?.to_owned();
        self.punct('>')?;
        self.punct('(')?;
        let params = self.list(')', Self::port)?;
        self.punct('{')?;
        let mut body = Vec::new();
        while !self.eat('}')? {
            body.push(self.stmt()?);
        }
        if self.token != Token::Arrow {
            return Err(self.expected("`->`"));
        }
        self.advance()?;
        self.punct('(')?;
        let returns = self.list(')', Self::name)?;
        self.punct(';')?;
        Ok(Function { name, opset, params, body, returns })
    }

    fn stmt(&mut self) -> Result<Stmt> {
        let mut results = vec![self.port()?];
        while self.eat(',')? {
            results.push(self.port()?);
        }
        self.punct('=')?;
        let op = self.word("an op")?.to_owned();
        self.punct('(')?;
        let args = self.list(')', |p| {
            let name = p.word("an argument name")?.to_owned();
            p.punct('=')?;
            Ok((name, p.arg()?))
        })?;
        self.punct('[')?;
        let attrs = self.list(']', |p| {
            let name = p.word("an attribute name")?.to_owned();
            p.punct('=')?;
            Ok((name, p.literal()?))
        })?;
        self.punct(';')?;
        Ok(Stmt { results, op, args, attrs })
    }

    fn port(&mut self) -> Result<Port> {
        let ty = self.ty()?;
        Ok(Port { name: self.name()?, ty })
    }

    fn name(&mut self) -> Result<String> {
        self.word("a name").map(str::to_owned)
    }

    fn arg(&mut self) -> Result<Arg> {
        if self.eat('(')? {
            return Ok(Arg::Tuple(self.list(')', Self::name)?));
        }
        let place = self.place;
        let word = self.word("a name, a literal or a tuple of names")?;
        match &self.token {
            Token::Punct('(') if word == "const" => {
                self.advance()?;
                let literal = self.literal()?;
                self.punct(')')?;
                Ok(Arg::Literal(literal))
            }
            Token::Punct('(' | '<') => {
                let ty = self.ty_from(word, place)?;
                self.payload(ty).map(Arg::Literal)
            }
            _ => Ok(Arg::Name(word.to_owned())),
        }
    }

    fn ty(&mut self) -> Result<Type> {
        let place = self.place;
        let word = self.word("a type")?;
        self.ty_from(word, place)
    }

    /// The type whose first word, at `place`, is read already.
    fn ty_from(&mut self, word: &str, place: Place) -> Result<Type> {
        let dtype = |word: &str, place| {
            DType::from_name(word).ok_or_else(|| ParseError::new(place, "a type", quote(word)))
        };
        if word != "tensor" {
            return Ok(Type::Scalar(dtype(word, place)?));
        }
        self.punct('<')?;
        let place = self.place;
        let dtype = dtype(self.word("an element type")?, place)?;
        self.punct(',')?;
        self.punct('[')?;
        let shape = self.list(']', |p| p.number("a dimension", |text| text.parse().ok()))?;
        self.punct('>')?;
        Ok(Type::Tensor { dtype, shape })
    }

    fn literal(&mut self) -> Result<Literal> {
        let ty = self.ty()?;
        self.payload(ty)
    }

    /// What stands in parentheses behind a type.
    fn payload(&mut self, ty: Type) -> Result<Literal> {
        self.punct('(')?;
        let literal = match ty {
            Type::Scalar(dtype) => self.scalar(dtype)?,
            Type::Tensor { dtype, shape } => {
                let value = match dtype {
                    _ if self.token == Token::Word("BLOBFILE") => self.blob()?,
                    DType::Fp16 => TensorValue::Fp16Bits(self.nested(&shape)?),
                    _ if dtype.int_range().is_some() => {
                        self.punct('[')?;
                        TensorValue::Ints(self.list(']', |p| p.integer(dtype))?)
                    }
                    _ => return Err(self.expected("`BLOBFILE`")),
                };
                Literal::Tensor { dtype, shape, value }
            }
        };
        self.punct(')')?;
        Ok(literal)
    }

    fn scalar(&mut self, dtype: DType) -> Result<Literal> {
        match dtype {
            DType::Fp16 => {
                let finite = |text: &str| Some(round_to_f16(float(text)?)).filter(|h: &f16| h.is_finite());
                self.number("a number within 65504 of zero", finite).map(Literal::Fp16)
            }
            DType::Fp32 => self.number("a finite fp32 number", float32).map(Literal::Fp32),
            DType::String => self.quoted().map(Literal::String),
            DType::Bool => {
                let value = match self.token {
                    Token::Word("true") => true,
                    Token::Word("false") => false,
                    _ => return Err(self.expected("`true` or `false`")),
                };
                self.advance()?;
                Ok(Literal::Bool(value))
            }
            _ => self.integer(dtype).map(|value| Literal::Int { dtype, value }),
        }
    }

    fn integer(&mut self, dtype: DType) -> Result<i64> {
        let (low, high) = dtype.int_range().ok_or_else(|| self.expected("an integer type"))?;
        let expected = format!("a decimal {dtype}, {low} to {high}");
        self.number(&expected, |text| text.parse().ok().filter(|v| (low..=high).contains(v)))
    }

    fn blob(&mut self) -> Result<TensorValue> {
        self.keyword("BLOBFILE")?;
        self.punct('(')?;
        self.keyword("path")?;
        self.punct('=')?;
        self.keyword("string")?;
        self.punct('(')?;
        let path = self.quoted()?;
        self.punct(')')?;
        self.punct(',')?;
        self.keyword("offset")?;
        self.punct('=')?;
        self.keyword("uint64")?;
        self.punct('(')?;
        let offset = self.number("a decimal uint64", |text| text.parse().ok())?;
        self.punct(')')?;
        self.punct(')')?;
        Ok(TensorValue::Blob { path, offset })
    }

    /// 16-bit patterns in lists nested as the shape says; the lists still open are on a stack.
    fn nested(&mut self, shape: &[u64]) -> Result<Vec<u16>> {
        let mut bits = Vec::new();
        let mut dims = shape.iter();
        let mut open: Vec<(u64, u64)> = Vec::new();
        loop {
            if let Some(&dim) = dims.as_slice().first() {
                self.punct('[')?;
                dims.next();
                open.push((0, dim));
                if dim > 0 {
                    continue;
                }
            } else {
                bits.push(self.number("a 16-bit pattern like 0x3c00", pattern)?);
            }
            // An item is complete: close the lists that are full with it, then go on to the next.
            loop {
                let Some((count, dim)) = open.last_mut() else { return Ok(bits) };
                *count += 1;
                if count < dim {
                    break;
                }
                self.punct(']')?;
                open.pop();
            }
            self.punct(',')?;
            dims = shape.get(open.len()..).unwrap_or_default().iter();
        }
    }

    /// Items up to a closing mark, comma between; the opening mark is read already.
    fn list<T>(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        if self.eat(close)? {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat(close)? {
                return Ok(items);
            }
            if !self.eat(',')? {
                return Err(self.expected(&format!("`,` or `{close}`")));
            }
        }
    }

    fn number<T>(&mut self, expected: &str, value: impl FnOnce(&str) -> Option<T>) -> Result<T> {
        let Token::Number(text) = self.token else { return Err(self.expected(expected)) };
        let value = value(text).ok_or_else(|| self.expected(expected))?;
        self.advance()?;
        Ok(value)
    }

    fn exactly(&mut self, number: &str) -> Result<()> {
        self.number(&quote(number), |text| (text == number).then_some(()))
    }

    fn quoted(&mut self) -> Result<String> {
        match &mut self.token {
            Token::Str(value) => {
                let value = std::mem::take(value);
                self.advance()?;
                Ok(value)
            }
            _ => Err(self.expected("a string")),
        }
    }

    fn word(&mut self, expected: &str) -> Result<&'a str> {
        let Token::Word(word) = self.token else { return Err(self.expected(expected)) };
        self.advance()?;
        Ok(word)
    }

    fn keyword(&mut self, keyword: &str) -> Result<()> {
        if !matches!(self.token, Token::Word(word) if word == keyword) {
            return Err(self.expected(&quote(keyword)));
        }
        self.advance()
    }

    fn punct(&mut self, mark: char) -> Result<()> {
        if self.eat(mark)? { Ok(()) } else { Err(self.expected(&format!("`{mark}`"))) }
    }

    fn eat(&mut self, mark: char) -> Result<bool> {
        let found = self.token == Token::Punct(mark);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn end(&self) -> Result<()> {
        if self.token == Token::End { Ok(()) } else { Err(self.expected("the end of the text")) }
    }

    fn advance(&mut self) -> Result<()> {
        (self.token, self.place) = self.lexer.token()?;
        Ok(())
    }

    fn expected(&self, expected: &str) -> ParseError {
        let found = match &self.token {
            Token::Word(text) | Token::Number(text) => quote(text),
            Token::Str(text) => format!("the string {}", quote(text)),
            Token::Punct(mark) => format!("`{mark}`"),
            Token::Arrow => "`->`".to_owned(),
            Token::End => "the end of the text".to_owned(),
        };
        ParseError::new(self.place, expected, found)
    }
}

/// A piece of the text in a message, shortened.
fn quote(text: &str) -> String {
    let dots = if text.chars().nth(FOUND_LEN).is_some() { "…" } else { "" };
    format!("`{}{dots}`", text.chars().take(FOUND_LEN).collect::<String>())
}

fn pattern(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("0x").filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}
