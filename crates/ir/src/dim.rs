//! Symbolic extents: integer polynomials over named dimensions, floor divisions included, in a normal form.
//!
//! Two extents that are equal as polynomials compare equal; a [`Dim`] that differs may still turn out equal for the
//! values at hand. Arithmetic is checked: an overflow is an error, never a wrong extent.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Values for the symbols of a model, as `--shape` or an input gives them.
pub type Bindings = BTreeMap<String, usize>;

/// An extent: a constant, or a polynomial over the symbols of the model.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dim {
    /// Sum of coefficient times monomial; the empty monomial is the constant. No coefficient is zero.
    terms: BTreeMap<Vec<Atom>, i64>,
}

/// What is multiplied in a monomial.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Atom {
    /// A named dimension.
    Symbol(Arc<str>),
    /// Rounded down; the divisor is positive.
    FloorDiv(Box<Dim>, i64),
}

impl Dim {
    /// The symbol that stands for an extent nothing is known of. It is not known to equal itself.
    pub const UNKNOWN: &'static str = "?";

    /// A named dimension.
    pub fn symbol(name: &str) -> Self {
        Self { terms: BTreeMap::from([(vec![Atom::Symbol(name.into())], 1)]) }
    }

    /// An extent nothing is known of.
    pub fn unknown() -> Self {
        Self::symbol(Self::UNKNOWN)
    }

    /// A constant that may be negative on the way to an extent.
    pub fn constant(value: i64) -> Self {
        let mut terms = BTreeMap::new();
        if value != 0 {
            terms.insert(vec![], value);
        }
        Self { terms }
    }

    /// The value when no symbol is left in it.
    pub fn known_i64(&self) -> Option<i64> {
        match self.terms.len() {
            0 => Some(0),
            1 => self.terms.get(&vec![]).copied(),
            _ => None,
        }
    }

    /// The extent when no symbol is left in it and it is not negative.
    pub fn known(&self) -> Option<usize> {
        self.known_i64().and_then(|value| usize::try_from(value).ok())
    }

    /// True when it is not negative whatever the symbols are, as far as the signs of its terms tell.
    pub fn is_never_negative(&self) -> bool {
        let atom = |atom: &Atom| match atom {
            Atom::Symbol(_) => true,
            Atom::FloorDiv(inner, _) => inner.is_never_negative(),
        };
        self.terms.iter().all(|(monomial, &coefficient)| coefficient >= 0 && monomial.iter().all(atom))
    }

    /// True when nothing at all is known of some part of it.
    pub fn is_unknown(&self) -> bool {
        self.symbols().iter().any(|name| name == Self::UNKNOWN)
    }

    /// `Some(true)` or `Some(false)` when the two are equal or different whatever the symbols are, else `None`.
    pub fn equals(&self, other: &Self) -> Option<bool> {
        if self.is_unknown() || other.is_unknown() {
            return None;
        }
        let difference = self.sub(other).ok()?;
        difference.known_i64().map(|value| value == 0)
    }

    /// Sum.
    ///
    /// # Errors
    /// On overflow of a coefficient.
    pub fn add(&self, other: &Self) -> Result<Self> {
        let mut terms = self.terms.clone();
        for (monomial, &coefficient) in &other.terms {
            accumulate(&mut terms, monomial.clone(), coefficient)?;
        }
        Ok(Self { terms })
    }

    /// Difference.
    ///
    /// # Errors
    /// On overflow of a coefficient.
    pub fn sub(&self, other: &Self) -> Result<Self> {
        self.add(&other.mul(&Self::constant(-1))?)
    }

    /// Product.
    ///
    /// # Errors
    /// On overflow of a coefficient.
    pub fn mul(&self, other: &Self) -> Result<Self> {
        let mut terms = BTreeMap::new();
        for (a, &x) in &self.terms {
            for (b, &y) in &other.terms {
                let mut monomial = [a.as_slice(), b.as_slice()].concat();
                monomial.sort();
                accumulate(&mut terms, monomial, x.checked_mul(y).ok_or_else(overflow)?)?;
            }
        }
        Ok(Self { terms })
    }

    /// Quotient, rounded down.
    ///
    /// # Errors
    /// When the divisor is not positive.
    pub fn floor_div(&self, divisor: i64) -> Result<Self> {
        if divisor <= 0 {
            return Err(Error::Size(format!("division of an extent by {divisor}")));
        }
        // (divisor * a + b) / divisor = a + b / divisor, so whole multiples come out.
        let (mut whole, mut rest) = (BTreeMap::new(), BTreeMap::new());
        for (monomial, &coefficient) in &self.terms {
            let (quotient, remainder) = (coefficient.div_euclid(divisor), coefficient.rem_euclid(divisor));
            if remainder == 0 || monomial.is_empty() {
                accumulate(&mut whole, monomial.clone(), quotient)?;
                accumulate(&mut rest, monomial.clone(), remainder)?;
            } else {
                accumulate(&mut rest, monomial.clone(), coefficient)?;
            }
        }
        let (mut whole, rest) = (Self { terms: whole }, Self { terms: rest });
        if rest.known_i64().is_none() {
            whole = whole
                .add(&Self { terms: BTreeMap::from([(vec![Atom::FloorDiv(Box::new(rest), divisor)], 1)]) })?;
        }
        Ok(whole)
    }

    /// Quotient, rounded up.
    ///
    /// # Errors
    /// When the divisor is not positive.
    pub fn ceil_div(&self, divisor: i64) -> Result<Self> {
        self.add(&Self::constant(divisor.saturating_sub(1)))?.floor_div(divisor)
    }

    /// Quotient when the divisor is a single product that divides every term, whatever the symbols are; else `None`.
    pub fn exact_div(&self, divisor: &Self) -> Option<Self> {
        let (factors, &coefficient) = divisor.terms.first_key_value()?;
        if divisor.terms.len() > 1 || self.is_unknown() || divisor.is_unknown() {
            return None;
        }
        let mut terms = BTreeMap::new();
        for (monomial, &dividend) in &self.terms {
            let mut rest = monomial.clone();
            for factor in factors {
                rest.remove(rest.iter().position(|atom| atom == factor)?);
            }
            if dividend.checked_rem(coefficient)? != 0 {
                return None;
            }
            terms.insert(rest, dividend.checked_div(coefficient)?);
        }
        Some(Self { terms })
    }

    /// Names of the symbols in it, each once, sorted.
    pub fn symbols(&self) -> Vec<String> {
        let mut names = vec![];
        for atom in self.terms.keys().flatten() {
            match atom {
                Atom::Symbol(name) => names.push(name.to_string()),
                Atom::FloorDiv(inner, _) => names.extend(inner.symbols()),
            }
        }
        names.sort();
        names.dedup();
        names
    }

    /// With the bound symbols replaced by their values.
    ///
    /// # Errors
    /// On overflow.
    pub fn bind(&self, bindings: &Bindings) -> Result<Self> {
        let mut sum = Self::constant(0);
        for (monomial, &coefficient) in &self.terms {
            let mut product = Self::constant(coefficient);
            for atom in monomial {
                let factor = match atom {
                    Atom::Symbol(name) => match bindings.get(name.as_ref()) {
                        Some(&value) => Self::constant(i64::try_from(value).map_err(|_| overflow())?),
                        None => Self { terms: BTreeMap::from([(vec![atom.clone()], 1)]) },
                    },
                    Atom::FloorDiv(inner, divisor) => inner.bind(bindings)?.floor_div(*divisor)?,
                };
                product = product.mul(&factor)?;
            }
            sum = sum.add(&product)?;
        }
        Ok(sum)
    }
}

fn overflow() -> Error {
    Error::Size("arithmetic on extents overflows 64 bits".into())
}

fn accumulate(terms: &mut BTreeMap<Vec<Atom>, i64>, monomial: Vec<Atom>, coefficient: i64) -> Result<()> {
    let sum = terms.get(&monomial).copied().unwrap_or(0).checked_add(coefficient).ok_or_else(overflow)?;
    if sum == 0 {
        terms.remove(&monomial);
    } else {
        terms.insert(monomial, sum);
    }
    Ok(())
}

impl From<usize> for Dim {
    fn from(value: usize) -> Self {
        Self::constant(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Symbol(name) => f.write_str(name),
            Self::FloorDiv(inner, divisor) => write!(f, "floor(({inner})/{divisor})"),
        }
    }
}

impl fmt::Display for Dim {
    /// `2*H*W + H - 1`: highest monomials first, the constant last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("0");
        }
        let mut terms: Vec<_> = self.terms.iter().collect();
        terms.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(b.0)));
        for (i, (monomial, &coefficient)) in terms.into_iter().enumerate() {
            let sign = match (i, coefficient < 0) {
                (0, true) => "-",
                (0, false) => "",
                (_, true) => " - ",
                (_, false) => " + ",
            };
            f.write_str(sign)?;
            let magnitude = coefficient.unsigned_abs();
            if magnitude != 1 || monomial.is_empty() {
                write!(f, "{magnitude}")?;
                if !monomial.is_empty() {
                    f.write_str("*")?;
                }
            }
            for (j, atom) in monomial.iter().enumerate() {
                if j > 0 {
                    f.write_str("*")?;
                }
                write!(f, "{atom}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(value: i64) -> Dim {
        Dim::constant(value)
    }

    #[test]
    fn normal_form_decides_equality() {
        let (h, w) = (Dim::symbol("H"), Dim::symbol("W"));
        let a = h.add(&c(1)).unwrap().mul(&w).unwrap();
        let b = w.mul(&h).unwrap().add(&w).unwrap();
        assert_eq!(a, b);
        assert_eq!(a.equals(&b), Some(true));
        assert_eq!(a.equals(&b.add(&c(1)).unwrap()), Some(false));
        assert_eq!(h.equals(&w), None);
        assert_eq!(Dim::unknown().equals(&Dim::unknown()), None);
    }

    #[test]
    fn division_takes_whole_multiples_out() {
        let h = Dim::symbol("H");
        let doubled = h.mul(&c(2)).unwrap();
        assert_eq!(doubled.add(&c(5)).unwrap().floor_div(2).unwrap(), h.add(&c(2)).unwrap());
        let third = doubled.add(&c(5)).unwrap().floor_div(3).unwrap();
        for value in 0..20 {
            let bound = third.bind(&Bindings::from([("H".into(), value)])).unwrap();
            assert_eq!(bound.known(), Some((2 * value + 5) / 3));
        }
        assert_eq!(c(-3).floor_div(2).unwrap(), c(-2));
        assert_eq!(c(3).ceil_div(2).unwrap(), c(2));
    }

    #[test]
    fn exact_division_cancels_symbols() {
        let (h, w) = (Dim::symbol("H"), Dim::symbol("W"));
        let area = h.mul(&w).unwrap().mul(&c(6)).unwrap();
        let row = w.mul(&c(2)).unwrap();
        assert_eq!(area.exact_div(&row), Some(h.mul(&c(3)).unwrap()));
        assert_eq!(area.add(&w).unwrap().exact_div(&row), None);
        assert_eq!(row.exact_div(&area), None);
        assert_eq!(c(0).exact_div(&w), Some(c(0)));
        assert_eq!(area.exact_div(&c(0)), None);
        assert_eq!(Dim::unknown().exact_div(&Dim::unknown()), None);
    }

    #[test]
    fn prints_readably() {
        let h = Dim::symbol("H");
        let text = h.mul(&c(2)).unwrap().sub(&c(1)).unwrap().to_string();
        assert_eq!(text, "2*H - 1");
        assert_eq!(h.sub(&h).unwrap().to_string(), "0");
    }

    #[test]
    fn overflow_is_an_error() {
        assert!(c(i64::MAX).add(&c(1)).is_err());
        assert!(c(i64::MAX).mul(&c(2)).is_err());
    }
}
