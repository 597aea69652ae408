//! Texts in parts of about one size, each of whole paragraphs or sentences where that is possible.

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage<'a> {
    /// Its characters, without white space around them.
    pub text: &'a str,
    /// Where it begins, in bytes.
    pub start: usize,
    /// The line on which it begins, from 1.
    pub line: usize,
}

/// The passages of a text: paragraphs, which blank lines part, are put together as long as they have no more than `most` bytes.
/// A longer one is cut behind the end of a sentence, else at white space, else between characters.
pub fn passages(text: &str, most: usize) -> Vec<Passage<'_>> {
    let most = most.max(4);
    let (mut parts, mut tail): (Vec<(usize, usize)>, bool) = (Vec::new(), false);
    for (start, end) in paragraphs(text) {
        if let Some(last) = parts.last_mut()
            && !tail
            && end - last.0 <= most
        {
            last.1 = end;
            continue;
        }
        let mut from = start;
        while end - from > most {
            let to = from + cut(&text[from..end], most);
            parts.push((from, to));
            from = to;
        }
        // What is left of a long paragraph stays by itself.
        tail = from != start;
        parts.push((from, end));
    }
    let (mut line, mut counted) = (1, 0);
    let mut found = Vec::with_capacity(parts.len());
    for (start, end) in parts {
        let whole = &text[start..end];
        let start = start + whole.len() - whole.trim_start().len();
        line += text[counted..start].bytes().filter(|&b| b == b'\n').count();
        counted = start;
        if !whole.trim().is_empty() {
            found.push(Passage { text: whole.trim(), start, line });
        }
    }
    found
}

/// Where paragraphs begin and end.
fn paragraphs(text: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut lines = text.split_inclusive('\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, line))
    });
    std::iter::from_fn(move || {
        let (start, first) = lines.find(|(_, line)| !line.trim().is_empty())?;
        let mut end = start + first.len();
        for (at, line) in lines.by_ref() {
            if line.trim().is_empty() {
                break;
            }
            end = at + line.len();
        }
        Some((start, end))
    })
}

/// Where the first `most` bytes of a longer text are best cut.
fn cut(text: &str, most: usize) -> usize {
    let most = (1..=most).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    let head = &text[..most];
    // Not so early that the parts become small.
    let late = |at: &usize| *at >= most / 2;
    let sentence = head.rmatch_indices(['.', '!', '?', '。', '\n']).map(|(at, end)| at + end.len());
    let ends =
        |at: &usize| text[*at..].starts_with(char::is_whitespace) || head[..*at].ends_with(['。', '\n']);
    let space = || match text[most..].starts_with(char::is_whitespace) {
        true => Some(most),
        false => head.rmatch_indices(char::is_whitespace).map(|(at, space)| at + space.len()).find(late),
    };
    sentence.filter(ends).find(late).or_else(space).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str, most: usize) -> Vec<(&str, usize)> {
        passages(text, most).iter().map(|passage| (passage.text, passage.line)).collect()
    }

    #[test]
    fn paragraphs_are_put_together_as_long_as_they_fit() {
        let text = "one\n\ntwo\nlines\n\n\nthree\n";
        assert_eq!(texts(text, 100), [("one\n\ntwo\nlines\n\n\nthree", 1)]);
        assert_eq!(texts(text, 17), [("one\n\ntwo\nlines", 1), ("three", 7)]);
        assert_eq!(texts(text, 10), [("one", 1), ("two\nlines", 3), ("three", 7)]);
        assert!(texts("", 10).is_empty() && texts(" \n\t\n", 10).is_empty());
    }

    #[test]
    fn long_paragraphs_are_cut_behind_sentences_or_words() {
        assert_eq!(
            texts("A cat sat. It slept well. Then it ran.", 28),
            [("A cat sat. It slept well.", 1), ("Then it ran.", 1)]
        );
        assert_eq!(texts("alpha beta gamma delta", 12), [("alpha beta", 1), ("gamma delta", 1)]);
        assert_eq!(texts("abcdefghij", 4), [("abcd", 1), ("efgh", 1), ("ij", 1)]);
        // Version numbers end no sentence.
        assert_eq!(texts("take 1.25 or so", 9), [("take 1.25", 1), ("or so", 1)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(text in "[a-z .\n€日]{0,300}", most in 1usize..60) {
            let found = passages(&text, most);
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let joined: String = found.iter().map(|passage| letters(passage.text)).collect();
            prop_assert_eq!(joined, letters(&text));
            for passage in &found {
                prop_assert!(passage.text.len() <= most.max(4));
                prop_assert!(text[passage.start..].starts_with(passage.text));
                prop_assert_eq!(passage.line, 1 + text[..passage.start].matches('\n').count());
            }
        }
    }
}
