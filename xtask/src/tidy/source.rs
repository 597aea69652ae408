//! Rust source with what is not code blanked out, and the functions in it.

/// A Rust file as the rules see it.
pub struct Source {
    /// From the root, with forward slashes.
    pub path: String,
    /// The text with comments, strings and characters as blanks; offsets and lines are kept.
    pub code: String,
    /// How many lines it has.
    pub lines: usize,
    /// Every function with a body, nested ones too.
    pub functions: Vec<Function>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// From 1, both included.
    pub lines: (usize, usize),
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let code = blanked(text);
        let functions = functions(&code);
        Source { path: path.into(), lines: text.lines().count(), code, functions }
    }

    /// The line of an offset, from 1.
    pub fn line(&self, offset: usize) -> usize {
        line(&self.code, offset)
    }

    /// Offsets at which `word` stands by itself.
    pub fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        words(&self.code, word)
    }

    /// The innermost function around a line.
    pub fn function_at(&self, line: usize) -> Option<&Function> {
        let around = self.functions.iter().filter(|f| (f.lines.0..=f.lines.1).contains(&line));
        around.min_by_key(|f| f.lines.1 - f.lines.0)
    }
}

fn line(code: &str, offset: usize) -> usize {
    code.as_bytes()[..offset].iter().filter(|&&b| b == b'\n').count() + 1
}

pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The identifier at the start of `code`, empty if there is none.
pub fn identifier(code: &str) -> &str {
    &code[..code.bytes().take_while(|&b| is_word(b)).count()]
}

pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).is_none_or(|i| !is_word(bytes[i]));
        before && bytes.get(at + word.len()).is_none_or(|&b| !is_word(b))
    })
}

/// The offset just past the bracket that closes the one at `open`, or the end.
pub fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (i, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return i + 1;
        }
    }
    code.len()
}

/// Replaces comments, strings and characters by blanks of the same length.
fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + literal(&text[at..], at.checked_sub(1).is_some_and(|i| is_word(bytes[i])));
        if end > at {
            code[at..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
            at = end;
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    String::from_utf8(code).expect("invariant: whole characters are blanked")
}

/// The length of the comment, string or character that begins here; 0 if none does.
fn literal(text: &str, in_word: bool) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return comment(text);
    }
    if in_word {
        // A letter before a quote belongs to a longer word, which was looked at from its start.
        return if text.starts_with('"') { string(text) } else { 0 };
    }
    let prefix = text.bytes().take_while(|b| b"bcr".contains(b)).count();
    let (prefix, rest) = text.split_at(prefix);
    match (prefix, rest.as_bytes().first()) {
        ("r" | "br" | "cr", Some(b'"' | b'#')) => match raw_string(rest) {
            0 => 0,
            n => prefix.len() + n,
        },
        ("" | "b" | "c", Some(b'"')) => prefix.len() + string(rest),
        ("" | "b", Some(b'\'')) => match character(rest) {
            0 => 0,
            n => prefix.len() + n,
        },
        _ => 0,
    }
}

/// A comment in stars, which may hold others.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(pair) = text.as_bytes().get(at..at + 2) {
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// From the first `#` or quote; 0 for a raw identifier.
fn raw_string(text: &str) -> usize {
    let hashes = text.bytes().take_while(|&b| b == b'#').count();
    if text.as_bytes().get(hashes) != Some(&b'"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[hashes + 1..].find(&end).map_or(text.len(), |at| hashes + 1 + at + end.len())
}

/// 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            text[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 3)
        }
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let rest = code[at + 2..].trim_start();
        // Macros name functions with a variable.
        let name = identifier(rest.strip_prefix('$').unwrap_or(rest));
        let Some(body) = body(code, at).filter(|_| !name.is_empty()) else { continue };
        found.push(Function {
            name: name.into(),
            lines: (line(code, at), line(code, closing(code, body) - 1)),
        });
    }
    found
}

/// The offset of the brace that opens a function's body, if it has one.
fn body(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0;
    for (i, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(i),
            b';' if depth == 0 => return None,
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left() {
        let cases = [
            ("a // unsafe\nb", "a \nb"),
            ("a /* x /* y */ z */ b", "a b"),
            (r#"f("un\"safe", 'x', '\'', b'"')"#, "f( , , , )"),
            (r###"r#"a"b"# + r##"x"# "## + y"###, "+ + y"),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("r#fn 'é' '\\u{e9}'.", "r#fn ."),
            ("x \"a\nb\" c", "x \n c"),
            ("br\"x\" c\"y\" z", "z"),
            ("\"never closed", ""),
        ];
        let squeezed = |text: &str| text.split(' ').filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
        for (text, code) in cases {
            assert_eq!(blanked(text).len(), text.len(), "{text}");
            assert_eq!(squeezed(&blanked(text)), squeezed(code), "{text}");
        }
    }

    #[test]
    fn functions_are_measured() {
        let text = "fn a() {\n    let f: fn(u8) = b;\n    fn b(_: [u8; { 2 }]) {\n    }\n}\ntrait T {\n    fn c(&self);\n}\n";
        let source = Source::new("a.rs", text);
        let found: Vec<_> = source.functions.iter().map(|f| (f.name.as_str(), f.lines)).collect();
        assert_eq!(found, [("a", (1, 5)), ("b", (3, 4))]);
        assert_eq!(source.function_at(4).map(|f| f.name.as_str()), Some("b"));
        assert_eq!(source.function_at(2).map(|f| f.name.as_str()), Some("a"));
        assert_eq!(source.function_at(7), None);
    }

    #[test]
    fn words_stand_alone() {
        let source = Source::new("a.rs", "unsafe_code unsafe { }\nmy_unsafe unsafe");
        let lines: Vec<usize> = source.words("unsafe").map(|at| source.line(at)).collect();
        assert_eq!(lines, [1, 2]);
    }
}
