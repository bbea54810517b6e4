//! Tokens of the text form. What they mean together is in [`super::parse`].

use crate::error::{Error, Result};
use std::borrow::Cow;
use std::fmt;

/// A token; names and strings are unescaped.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'t> {
    /// End of the text.
    End,
    /// End of a line; none inside brackets.
    Newline,
    /// `Relu`, `f32`, `_`.
    Word(&'t str),
    /// `%x`.
    Value(Cow<'t, str>),
    /// `@w`.
    Constant(Cow<'t, str>),
    /// Digits, perhaps with a fraction and an exponent, or hexadecimal; without sign.
    Number(&'t str),
    /// `"text"`.
    Text(Cow<'t, str>),
    /// `#0123456789abcdef`.
    Hash(u64),
    /// One of [`MARKS`].
    Mark(&'static str),
}

/// Punctuation, longest first.
const MARKS: &[&str] =
    &["..", "::", "(", ")", "[", "]", "{", "}", ",", "=", ":", "+", "-", "*", "/", "|", "?"];

/// True for a character of a name that stands behind `%` or `@` without quotes.
fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | ':' | '-')
}

/// A name as it stands behind `%` or `@`.
pub(super) fn sigil_name(name: &str) -> Cow<'_, str> {
    if !name.is_empty() && name.chars().all(in_name) && !name.ends_with(':') {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(quoted(name))
    }
}

/// A name as a word, in quotes where it is none.
pub(super) fn word(name: &str) -> Cow<'_, str> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')) && name != "_" {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(quoted(name))
    }
}

/// A string in quotes, with Rust's escapes.
pub(super) fn quoted(text: &str) -> String {
    format!("{text:?}")
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("the end of the text"),
            Self::Newline => f.write_str("the end of the line"),
            Self::Word(word) | Self::Number(word) => write!(f, "`{word}`"),
            Self::Value(name) => write!(f, "`%{}`", sigil_name(name)),
            Self::Constant(name) => write!(f, "`@{}`", sigil_name(name)),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Hash(hash) => write!(f, "`#{hash:016x}`"),
            Self::Mark(mark) => write!(f, "`{mark}`"),
        }
    }
}

/// Splits a text into tokens.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    at: usize,
    /// Brackets that are open: line ends inside them do not count.
    depth: usize,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// An error at a byte of the text.
    pub(super) fn error_at(&self, at: usize, problem: impl Into<String>) -> Error {
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        Error::Text { line, column: before[line_start..].chars().count() + 1, problem: problem.into() }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// The characters from here on that fulfil a condition.
    fn take_while(&mut self, condition: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| !condition(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    /// The next token and where it starts.
    pub(super) fn next(&mut self) -> Result<(Token<'t>, usize)> {
        loop {
            let in_brackets = self.depth > 0;
            self.take_while(|c| matches!(c, ' ' | '\t' | '\r') || (c == '\n' && in_brackets));
            if !self.rest().starts_with(';') {
                break;
            }
            self.take_while(|c| c != '\n');
        }
        let start = self.at;
        let Some(first) = self.rest().chars().next() else { return Ok((Token::End, start)) };
        let token = match first {
            '\n' => {
                self.at += 1;
                Token::Newline
            }
            '%' | '@' => {
                self.at += 1;
                let name = self.name(start)?;
                if first == '%' { Token::Value(name) } else { Token::Constant(name) }
            }
            '"' => Token::Text(self.string()?),
            '#' => self.hash()?,
            '0'..='9' => Token::Number(self.number()),
            'a'..='z' | 'A'..='Z' | '_' => {
                Token::Word(self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')))
            }
            _ => self.mark()?,
        };
        Ok((token, start))
    }

    fn name(&mut self, start: usize) -> Result<Cow<'t, str>> {
        if self.rest().starts_with('"') {
            return self.string();
        }
        let name = self.take_while(in_name);
        let trimmed = name.trim_end_matches(':');
        self.at -= name.len() - trimmed.len();
        if trimmed.is_empty() {
            return Err(
                self.error_at(start, "expected a name behind the sign, such as `%x` or `%\"odd name\"`")
            );
        }
        Ok(Cow::Borrowed(trimmed))
    }

    fn string(&mut self) -> Result<Cow<'t, str>> {
        let start = self.at;
        self.at += 1;
        let plain = self.take_while(|c| !matches!(c, '"' | '\\' | '\n'));
        if self.rest().starts_with('"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        loop {
            let here = self.at;
            let mut chars = self.rest().chars();
            match (chars.next(), chars.next()) {
                (Some('"'), _) => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                (Some('\\'), Some(escape)) => {
                    self.at += 1 + escape.len_utf8();
                    text.push(match escape {
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        '0' => '\0',
                        '"' | '\\' | '\'' => escape,
                        'u' => self.code_point(here)?,
                        _ => {
                            let problem = "unknown escape; accepted: \\n \\r \\t \\0 \\\" \\' \\\\ \\u{..}";
                            return Err(self.error_at(here, problem));
                        }
                    });
                }
                (None | Some('\n' | '\\'), _) => {
                    return Err(self.error_at(start, "the string is not closed on its line"));
                }
                _ => text.push_str(self.take_while(|c| !matches!(c, '"' | '\\' | '\n'))),
            }
        }
    }

    /// `{1f600}` behind `\u`.
    fn code_point(&mut self, start: usize) -> Result<char> {
        let digits =
            self.rest().strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(digits, _)| digits);
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
        match (digits, code) {
            (Some(digits), Some(code)) => {
                self.at += digits.len() + 2;
                Ok(code)
            }
            _ => Err(self.error_at(start, "expected a character's code, such as \\u{e9}")),
        }
    }

    fn hash(&mut self) -> Result<Token<'t>> {
        let start = self.at;
        self.at += 1;
        let digits = self.take_while(|c| c.is_ascii_alphanumeric());
        match u64::from_str_radix(digits, 16) {
            Ok(hash) if digits.len() == 16 => Ok(Token::Hash(hash)),
            _ => Err(self.error_at(start, "expected 16 hexadecimal digits behind `#`")),
        }
    }

    fn number(&mut self) -> &'t str {
        let start = self.at;
        if self.rest().starts_with("0x") {
            self.at += 2;
            self.take_while(|c| c.is_ascii_hexdigit());
            return &self.text[start..self.at];
        }
        let is_digit = |c: char| c.is_ascii_digit();
        self.take_while(is_digit);
        if let Some(fraction) = self.rest().strip_prefix('.')
            && fraction.starts_with(is_digit)
        {
            self.at += 1;
            self.take_while(is_digit);
        }
        if let Some(exponent) = self.rest().strip_prefix(['e', 'E']) {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.starts_with(is_digit) {
                self.at += 1 + exponent.len() - digits.len();
                self.take_while(is_digit);
            }
        }
        &self.text[start..self.at]
    }

    fn mark(&mut self) -> Result<Token<'t>> {
        let Some(&mark) = MARKS.iter().find(|mark| self.rest().starts_with(**mark)) else {
            let found = self.rest().chars().next().unwrap_or_default();
            return Err(self.error_at(self.at, format!("a line of the text form has no {found:?} here")));
        };
        self.at += mark.len();
        match mark {
            "(" | "[" | "{" => self.depth += 1,
            ")" | "]" | "}" => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        Ok(Token::Mark(mark))
    }
}
