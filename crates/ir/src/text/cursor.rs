//! Reading tokens one by one, with errors that say what was expected; integers, extents and types.

use super::lexer::{Lexer, Token};
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::value_type::ValueType;
use std::str::FromStr;

/// Parentheses that may be open in an extent.
const MAX_DEPTH: usize = 32;

/// A text, and the token that comes next.
#[derive(Clone)]
pub(super) struct Cursor<'t> {
    lexer: Lexer<'t>,
    token: Token<'t>,
    start: usize,
}

impl<'t> Cursor<'t> {
    pub(super) fn new(text: &'t str) -> Result<Self> {
        let mut lexer = Lexer::new(text);
        let (token, start) = lexer.next()?;
        Ok(Self { lexer, token, start })
    }

    /// The token that comes next.
    pub(super) fn token(&self) -> &Token<'t> {
        &self.token
    }

    /// Where it starts.
    pub(super) fn position(&self) -> usize {
        self.start
    }

    /// Takes the token.
    pub(super) fn advance(&mut self) -> Result<Token<'t>> {
        let (next, start) = self.lexer.next()?;
        self.start = start;
        Ok(std::mem::replace(&mut self.token, next))
    }

    /// An error at a position that was noted before.
    pub(super) fn error_at(&self, position: usize, problem: impl Into<String>) -> Error {
        self.lexer.error_at(position, problem)
    }

    /// An error at the next token: `expected .., found ..`.
    pub(super) fn expected(&self, what: &str) -> Error {
        self.error_at(self.start, format!("expected {what}, found {}", self.token))
    }

    /// Takes the token when it is this mark.
    pub(super) fn accept(&mut self, mark: &str) -> Result<bool> {
        let found = matches!(self.token, Token::Mark(found) if found == mark);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    /// Takes the token when it is this word.
    pub(super) fn accept_word(&mut self, word: &str) -> Result<bool> {
        let found = matches!(self.token, Token::Word(found) if found == word);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    /// Takes this mark.
    pub(super) fn expect(&mut self, mark: &str) -> Result<()> {
        if self.accept(mark)? { Ok(()) } else { Err(self.expected(&format!("`{mark}`"))) }
    }

    /// A list up to `close`, which is taken: items with commas between them.
    pub(super) fn list<T>(
        &mut self,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut items = vec![];
        while !self.accept(close)? {
            if !items.is_empty() && !self.accept(",")? {
                return Err(self.expected(&format!("`,` or `{close}`")));
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// A word or a string.
    pub(super) fn word_or_string(&mut self, what: &str) -> Result<String> {
        let text = match &self.token {
            Token::Word(word) => (*word).to_owned(),
            Token::Text(text) => text.clone().into_owned(),
            _ => return Err(self.expected(what)),
        };
        self.advance()?;
        Ok(text)
    }

    /// An integer with its sign, in a range.
    pub(super) fn integer<T: TryFrom<i128>>(&mut self, what: &str) -> Result<T> {
        let start = self.start;
        let negative = self.accept("-")?;
        let Token::Number(digits) = self.token else { return Err(self.expected(what)) };
        let value = digits.parse::<i128>().ok().map(|value| if negative { -value } else { value });
        let Some(value) = value.and_then(|value| T::try_from(value).ok()) else {
            let sign = if negative { "-" } else { "" };
            return Err(self.error_at(start, format!("expected {what}, found `{sign}{digits}`")));
        };
        self.advance()?;
        Ok(value)
    }

    /// An element type by its short name.
    pub(super) fn dtype(&mut self) -> Result<DType> {
        let dtype = match self.token {
            Token::Word(word) => DType::from_name(word),
            _ => None,
        };
        let Some(dtype) = dtype else { return Err(self.expected("an element type such as f32 or i64")) };
        self.advance()?;
        Ok(dtype)
    }

    /// `f32[1, H, 2*W]`, `f32[..]`, `?[..]`.
    pub(super) fn value_type(&mut self) -> Result<ValueType> {
        let dtype = if self.accept("?")? { None } else { Some(self.dtype()?) };
        self.expect("[")?;
        if self.accept("..")? {
            self.expect("]")?;
            return Ok(ValueType { dtype, shape: None });
        }
        Ok(ValueType { dtype, shape: Some(self.list("]", |cursor| cursor.dim(0))?) })
    }

    /// A sum of products.
    pub(super) fn dim(&mut self, depth: usize) -> Result<Dim> {
        let start = self.start;
        if depth > MAX_DEPTH {
            return Err(self.error_at(start, format!("an extent nests at most {MAX_DEPTH} parentheses")));
        }
        let negative = self.accept("-")?;
        let mut sum = self.product(negative, depth)?;
        loop {
            let negative = self.accept("-")?;
            if !negative && !self.accept("+")? {
                return Ok(sum);
            }
            let product = self.product(negative, depth)?;
            sum = sum.add(&product).map_err(|error| self.error_at(start, error.to_string()))?;
        }
    }

    fn product(&mut self, negative: bool, depth: usize) -> Result<Dim> {
        let start = self.start;
        // The sign belongs to the number, so that the least one can be written.
        let mut product = match self.token {
            Token::Number(digits) => {
                let value = digits.parse::<i128>().ok();
                let value = value.and_then(|value| i64::try_from(if negative { -value } else { value }).ok());
                let Some(value) = value else { return Err(self.expected("an extent of at most 63 bits")) };
                self.advance()?;
                Dim::constant(value)
            }
            _ => {
                let factor = self.factor(depth)?;
                if negative { self.checked(start, factor.mul(&Dim::constant(-1)))? } else { factor }
            }
        };
        while self.accept("*")? {
            let factor = self.factor(depth)?;
            product = self.checked(start, product.mul(&factor))?;
        }
        Ok(product)
    }

    fn factor(&mut self, depth: usize) -> Result<Dim> {
        let start = self.start;
        match self.token.clone() {
            Token::Number(_) => Ok(Dim::constant(self.integer("an extent of at most 63 bits")?)),
            Token::Mark("?") => {
                self.advance()?;
                Ok(Dim::unknown())
            }
            Token::Word("floor") => {
                self.advance()?;
                self.expect("(")?;
                self.expect("(")?;
                let dividend = self.dim(depth + 1)?;
                self.expect(")")?;
                self.expect("/")?;
                let divisor = self.integer("a divisor")?;
                self.expect(")")?;
                self.checked(start, dividend.floor_div(divisor))
            }
            Token::Word(name) => {
                self.advance()?;
                Ok(Dim::symbol(name))
            }
            Token::Text(name) => {
                self.advance()?;
                Ok(Dim::symbol(&name))
            }
            Token::Mark("(") => {
                self.advance()?;
                let inner = self.dim(depth + 1)?;
                self.expect(")")?;
                Ok(inner)
            }
            _ => Err(self.expected("an extent: a number, a symbol, `?` or floor((..)/n)")),
        }
    }

    /// Arithmetic that failed, at the place where it stands.
    fn checked(&self, start: usize, result: Result<Dim>) -> Result<Dim> {
        result.map_err(|error| self.error_at(start, error.to_string()))
    }

    /// The end of the text, behind the last line end.
    fn finish(&mut self) -> Result<()> {
        while self.token == Token::Newline {
            self.advance()?;
        }
        if self.token == Token::End { Ok(()) } else { Err(self.expected("the end of the text")) }
    }
}

impl FromStr for Dim {
    type Err = Error;

    /// From the form that is printed; any sums and products in it are taken.
    fn from_str(text: &str) -> Result<Self> {
        let mut cursor = Cursor::new(text)?;
        let dim = cursor.dim(0)?;
        cursor.finish()?;
        Ok(dim)
    }
}

impl FromStr for ValueType {
    type Err = Error;

    /// From the form that is printed.
    fn from_str(text: &str) -> Result<Self> {
        let mut cursor = Cursor::new(text)?;
        let ty = cursor.value_type()?;
        cursor.finish()?;
        Ok(ty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_print_and_parse() {
        for text in [
            "0",
            "7",
            "-3",
            "H",
            "?",
            "2*H - 1",
            "H*W + 2*H - 1",
            "-H + 4",
            "\"2*n\"",
            "3*H*\"a b\"",
            "\"floor\"",
            "floor((H + 1)/2)",
            "2*floor((W*floor((3*H + 1)/4) + 1)/8)",
            "-9223372036854775808*H",
            "-9223372036854775808",
            "N.1 + unk__12",
        ] {
            assert_eq!(text.parse::<Dim>().unwrap().to_string(), text);
        }
        assert_eq!("(H + 1)*(H - 1)".parse::<Dim>().unwrap().to_string(), "H*H - 1");
        assert_eq!("floor((4*H + 6)/4)".parse::<Dim>().unwrap().to_string(), "H + 1");
    }

    #[test]
    fn wrong_extents_name_the_place() {
        let error = |text: &str| text.parse::<Dim>().unwrap_err().to_string();
        assert_eq!(
            error("2*"),
            "line 1, column 3: expected an extent: a number, a symbol, `?` or floor((..)/n), found the end of the text"
        );
        assert_eq!(error("H 2"), "line 1, column 3: expected the end of the text, found `2`");
        assert!(error("9223372036854775808").contains("at most 63 bits"));
        assert!(error("9223372036854775807*3*H").contains("overflows"));
        assert!(error("floor((H)/0)").contains("division of an extent by 0"));
        assert!(error(&"(".repeat(100_000)).contains("at most 32 parentheses"));
    }

    #[test]
    fn types_print_and_parse() {
        for text in ["f32[1, H, 2*W]", "f32[]", "f32[..]", "?[..]", "?[?, 3]", "i64[0]"] {
            assert_eq!(text.parse::<ValueType>().unwrap().to_string(), text);
        }
        let error = "f33[1]".parse::<ValueType>().unwrap_err().to_string();
        assert_eq!(error, "line 1, column 1: expected an element type such as f32 or i64, found `f33`");
    }
}
