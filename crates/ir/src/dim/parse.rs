//! Extents back from the text that [`Dim`]'s `Display` makes of them.

use super::Dim;
use crate::error::{Error, Result};
use std::str::FromStr;

/// Deepest nesting of divisions that is read.
const MAX_DEPTH: usize = 16;

impl FromStr for Dim {
    type Err = Error;

    /// Sums of products of numbers, symbols and `floor((..)/number)`; a symbol is a plain name, `?`, or any text in double
    /// quotes.
    fn from_str(text: &str) -> Result<Self> {
        let mut parser = Parser { text, at: 0 };
        let dim = parser.sum(0)?;
        parser.space();
        if parser.at < text.len() { Err(parser.error("an operator or the end")) } else { Ok(dim) }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(self.error(&format!("`{token}`"))) }
    }

    fn error(&self, expected: &str) -> Error {
        let column = self.text[..self.at].chars().count() + 1;
        Error::Text { line: 1, column, problem: format!("expected {expected} in the extent `{}`", self.text) }
    }

    fn sum(&mut self, depth: usize) -> Result<Dim> {
        if depth == MAX_DEPTH {
            return Err(self.error(&format!("divisions nested at most {MAX_DEPTH} deep")));
        }
        let minus = self.eat("-");
        let mut sum = self.product(depth)?;
        if minus {
            sum = Dim::constant(0).sub(&sum)?;
        }
        loop {
            if self.eat("+") {
                sum = sum.add(&self.product(depth)?)?;
            } else if self.eat("-") {
                sum = sum.sub(&self.product(depth)?)?;
            } else {
                return Ok(sum);
            }
        }
    }

    fn product(&mut self, depth: usize) -> Result<Dim> {
        let mut product = self.factor(depth)?;
        while self.eat("*") {
            product = product.mul(&self.factor(depth)?)?;
        }
        Ok(product)
    }

    fn factor(&mut self, depth: usize) -> Result<Dim> {
        self.space();
        if self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(Dim::constant(self.number()?));
        }
        if self.eat("floor(") {
            self.expect("(")?;
            let inner = self.sum(depth + 1)?;
            self.expect(")")?;
            self.expect("/")?;
            self.space();
            let divisor = self.number()?;
            self.expect(")")?;
            return inner.floor_div(divisor);
        }
        self.symbol().map(|name| Dim::symbol(&name))
    }

    fn number(&mut self) -> Result<i64> {
        let digits = self.rest().find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest().len());
        let number = self.rest()[..digits].parse();
        let number = number.map_err(|_| self.error("a number below 2^63"))?;
        self.at += digits;
        Ok(number)
    }

    fn symbol(&mut self) -> Result<String> {
        if self.eat(Dim::UNKNOWN) {
            return Ok(Dim::UNKNOWN.to_owned());
        }
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        let length = self.rest().find(|c| !plain(c)).unwrap_or(self.rest().len());
        if length == 0 {
            return Err(self.error("a number, a symbol or floor(..)"));
        }
        let name = self.rest()[..length].to_owned();
        self.at += length;
        Ok(name)
    }

    /// A name as Rust's `{:?}` writes it.
    fn quoted(&mut self) -> Result<String> {
        let mut name = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok(name);
                }
                '\\' => name.extend(escape(&mut chars)),
                c => name.push(c),
            }
        }
        Err(self.error("a closing quote"))
    }
}

fn escape(chars: &mut impl Iterator<Item = (usize, char)>) -> Option<char> {
    match chars.next()?.1 {
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        '0' => Some('\0'),
        'u' => {
            let digits: String = chars.map(|(_, c)| c).skip(1).take_while(|&c| c != '}').take(6).collect();
            char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back() {
        let (h, odd) = (Dim::symbol("H"), Dim::symbol("batch \"n\" \u{1}\n-1"));
        let c = Dim::constant;
        let doubled = h.mul(&c(2)).unwrap();
        let third = doubled.add(&odd).unwrap().floor_div(3).unwrap();
        let all = [
            c(0),
            c(-7),
            h.clone(),
            Dim::unknown(),
            odd.clone(),
            doubled.sub(&c(1)).unwrap(),
            c(3).sub(&h).unwrap(),
            third.mul(&third).unwrap().add(&h.mul(&odd).unwrap()).unwrap(),
            third.add(&c(5)).unwrap().floor_div(7).unwrap(),
        ];
        for dim in all {
            assert_eq!(dim.to_string().parse::<Dim>().unwrap(), dim, "{dim}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        let nested = "floor((".repeat(5000);
        for text in
            ["", "H W", "2*", "floor(H/2)", "floor((H)/0)", "-", "H-", "9223372036854775808", "\"a", &nested]
        {
            assert!(text.parse::<Dim>().is_err(), "{text}");
        }
    }
}
