//! Words, numbers and signs of a text, and what is said where others stand there.

use super::parse::TextError;
use super::words::is_word;

pub(super) type Parsed<T> = Result<T, TextError>;

/// What is left of a text.
pub(super) struct Scanner<'a> {
    pub(super) rest: &'a str,
    line: usize,
    /// Nothing was read yet.
    is_fresh: bool,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Scanner<'a> {
        Scanner { rest: text, line: 1, is_fresh: true }
    }

    pub(super) fn fail<T>(&self, message: String) -> Parsed<T> {
        Err(TextError::Syntax { line: self.line, message })
    }

    /// As [`Scanner::fail`], with what stands here instead of `wanted`.
    pub(super) fn wanted<T>(&self, wanted: &str) -> Parsed<T> {
        let line = self.rest.lines().next().unwrap_or_default();
        let found: String = line.chars().take(20).collect();
        let found = if found.is_empty() { "the end".to_owned() } else { format!("`{found}`") };
        self.fail(format!("found {found}; accepted is {wanted}"))
    }

    /// Skips blanks, line ends and comments, which are whole lines.
    pub(super) fn skip(&mut self) {
        loop {
            let blanks = self.rest.trim_start();
            let skipped = &self.rest[..self.rest.len() - blanks.len()];
            self.line += skipped.matches('\n').count();
            let starts_line = skipped.contains('\n') || self.is_fresh;
            self.rest = blanks;
            self.is_fresh = false;
            if !(starts_line && blanks.starts_with(';')) {
                return;
            }
            self.rest = &blanks[blanks.find('\n').unwrap_or(blanks.len())..];
        }
    }

    pub(super) fn eat(&mut self, token: &str) -> bool {
        self.skip();
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        // A word ends where the token does.
        if token.bytes().all(is_word) && rest.bytes().next().is_some_and(is_word) {
            return false;
        }
        self.rest = rest;
        true
    }

    pub(super) fn expect(&mut self, token: &str) -> Parsed<()> {
        if self.eat(token) { Ok(()) } else { self.wanted(&format!("`{token}`")) }
    }

    pub(super) fn word(&mut self, wanted: &str) -> Parsed<&'a str> {
        self.skip();
        let length = self.rest.bytes().take_while(|&b| is_word(b)).count();
        if length == 0 {
            return self.wanted(wanted);
        }
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(word)
    }

    /// A number with its sign; `1e-7` is one.
    pub(super) fn number(&mut self, wanted: &str) -> Parsed<&'a str> {
        self.skip();
        let start = self.rest;
        let bytes = start.as_bytes();
        let mut length = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
        while let Some(&byte) = bytes.get(length) {
            let exponent = matches!(byte, b'+' | b'-') && length > 0 && bytes[length - 1] == b'e';
            if !is_word(byte) && !exponent {
                break;
            }
            length += 1;
        }
        let digits = start[..length].trim_start_matches(['+', '-']);
        if !digits.starts_with(|c: char| c.is_ascii_digit()) {
            return self.wanted(wanted);
        }
        self.rest = &start[length..];
        Ok(&start[..length])
    }

    pub(super) fn integer<T: std::str::FromStr>(&mut self, wanted: &str) -> Parsed<T> {
        let (before, text) = (self.rest, self.number(wanted)?);
        let Ok(value) = text.parse() else {
            self.rest = before;
            return self.wanted(wanted);
        };
        Ok(value)
    }

    pub(super) fn bytes(&mut self) -> Parsed<i32> {
        self.integer("a number of bytes that an i32 holds")
    }

    /// A word, or any characters in quotes.
    pub(super) fn name(&mut self) -> Parsed<String> {
        if !self.eat("\"") {
            return self.word("the name of the tile").map(str::to_owned);
        }
        let (mut name, mut chars) = (String::new(), self.rest.chars());
        loop {
            let Some(c) = chars.next() else { return self.wanted("a name that ends in `\"`") };
            match c {
                '"' => break,
                '\\' => match unescaped(&mut chars) {
                    Some(c) => name.push(c),
                    None => return self.wanted("a character as Rust escapes it"),
                },
                c => name.push(c),
            }
        }
        self.rest = chars.as_str();
        Ok(name)
    }
}

/// The character behind a backslash, as `{:?}` of a string writes it.
fn unescaped(chars: &mut std::str::Chars<'_>) -> Option<char> {
    match chars.next()? {
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        '0' => Some('\0'),
        c @ ('"' | '\\' | '\'') => Some(c),
        'u' => {
            let rest = chars.as_str().strip_prefix('{')?;
            let (digits, rest) = rest.split_once('}')?;
            *chars = rest.chars();
            char::from_u32(u32::from_str_radix(digits, 16).ok()?)
        }
        _ => None,
    }
}
