//! Symbolic extents: integer polynomials over named dimensions, floor divisions included, in a normal form.
//!
//! Two extents that are equal as polynomials compare equal; a [`Dim`] that differs may still turn out equal for the
//! values at hand. Arithmetic is checked: an overflow is an error, never a wrong extent. A polynomial that grows beyond
//! [`Dim::MAX_SIZE`] becomes unknown, which is always true of it.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Values for the symbols of a model, as `--shape` or an input gives them.
pub type Bindings = BTreeMap<String, usize>;

/// An extent: a constant, or a polynomial over the symbols of the model. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dim(Repr);

/// Normal form: a polynomial without symbols is a constant.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Constant(i64),
    Polynomial(Arc<Terms>),
}

/// Sum of coefficient times monomial; the empty monomial is the constant. No coefficient is zero.
type Terms = BTreeMap<Vec<Atom>, i64>;

/// What is multiplied in a monomial.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Atom {
    /// A named dimension.
    Symbol(Arc<str>),
    /// Rounded down; the divisor is at least 2, and the coefficients of the dividend are from 0 to below it.
    FloorDiv(Dim, i64),
}

impl Dim {
    /// The symbol that stands for an extent nothing is known of. It is not known to equal itself.
    pub const UNKNOWN: &'static str = "?";

    /// Number of symbols and divisions that a polynomial may hold.
    pub const MAX_SIZE: usize = 128;

    /// A named dimension.
    pub fn symbol(name: &str) -> Self {
        Self::atom(Atom::Symbol(name.into()))
    }

    /// An extent nothing is known of.
    pub fn unknown() -> Self {
        Self::symbol(Self::UNKNOWN)
    }

    /// A constant that may be negative on the way to an extent.
    pub const fn constant(value: i64) -> Self {
        Self(Repr::Constant(value))
    }

    fn atom(atom: Atom) -> Self {
        Self(Repr::Polynomial(Arc::new(Terms::from([(vec![atom], 1)]))))
    }

    /// The normal form of a sum of terms.
    fn sum(terms: Terms) -> Self {
        match terms.len() {
            0 => Self::constant(0),
            1 if terms.contains_key([].as_slice()) => Self::constant(terms.into_values().sum()),
            _ => {
                let dim = Self(Repr::Polynomial(Arc::new(terms)));
                if dim.size() > Self::MAX_SIZE { Self::unknown() } else { dim }
            }
        }
    }

    /// Monomials with their coefficients.
    fn terms(&self) -> impl Iterator<Item = (&[Atom], i64)> {
        let (constant, polynomial) = match &self.0 {
            Repr::Constant(value) => ((*value != 0).then_some(([].as_slice(), *value)), None),
            Repr::Polynomial(terms) => (None, Some(terms)),
        };
        let rest = polynomial.into_iter().flat_map(|terms| terms.iter().map(|(m, &c)| (m.as_slice(), c)));
        constant.into_iter().chain(rest)
    }

    /// Symbols and divisions in it, with their repetitions.
    fn size(&self) -> usize {
        let atom = |atom: &Atom| match atom {
            Atom::Symbol(_) => 1,
            Atom::FloorDiv(inner, _) => 1 + inner.size(),
        };
        self.terms().map(|(monomial, _)| 1 + monomial.iter().map(atom).sum::<usize>()).sum()
    }

    /// The value when no symbol is left in it.
    pub fn known_i64(&self) -> Option<i64> {
        match self.0 {
            Repr::Constant(value) => Some(value),
            Repr::Polynomial(_) => None,
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
        self.terms().all(|(monomial, coefficient)| coefficient >= 0 && monomial.iter().all(atom))
    }

    /// The name when it is one symbol and nothing else.
    pub fn as_symbol(&self) -> Option<&str> {
        let mut terms = self.terms();
        match (terms.next(), terms.next()) {
            (Some(([Atom::Symbol(name)], 1)), None) => Some(name),
            _ => None,
        }
    }

    /// True when nothing is known of it: arithmetic with something unknown is unknown.
    pub fn is_unknown(&self) -> bool {
        self.as_symbol() == Some(Self::UNKNOWN)
    }

    /// `Some(true)` or `Some(false)` when the two are equal or different whatever the symbols are, else `None`.
    pub fn equals(&self, other: &Self) -> Option<bool> {
        if self.is_unknown() || other.is_unknown() {
            return None;
        }
        self.sub(other).ok()?.known_i64().map(|difference| difference == 0)
    }

    /// Sum.
    ///
    /// # Errors
    /// On overflow of a coefficient.
    pub fn add(&self, other: &Self) -> Result<Self> {
        if let (Repr::Constant(a), Repr::Constant(b)) = (&self.0, &other.0) {
            return a.checked_add(*b).map(Self::constant).ok_or_else(overflow);
        }
        if self.is_unknown() || other.is_unknown() {
            return Ok(Self::unknown());
        }
        let mut terms = Terms::new();
        for (monomial, coefficient) in self.terms().chain(other.terms()) {
            accumulate(&mut terms, monomial.to_vec(), coefficient)?;
        }
        Ok(Self::sum(terms))
    }

    /// Difference.
    ///
    /// # Errors
    /// On overflow of a coefficient.
    pub fn sub(&self, other: &Self) -> Result<Self> {
        if let (Repr::Constant(a), Repr::Constant(b)) = (&self.0, &other.0) {
            return a.checked_sub(*b).map(Self::constant).ok_or_else(overflow);
        }
        self.add(&other.mul(&Self::constant(-1))?)
    }

    /// Product.
    ///
    /// # Errors
    /// On overflow of a coefficient.
    pub fn mul(&self, other: &Self) -> Result<Self> {
        match (&self.0, &other.0) {
            (Repr::Constant(a), Repr::Constant(b)) => {
                return a.checked_mul(*b).map(Self::constant).ok_or_else(overflow);
            }
            (Repr::Constant(0), _) | (_, Repr::Constant(0)) => return Ok(Self::constant(0)),
            (Repr::Constant(1), _) => return Ok(other.clone()),
            (_, Repr::Constant(1)) => return Ok(self.clone()),
            _ if self.is_unknown() || other.is_unknown() => return Ok(Self::unknown()),
            _ => {}
        }
        let mut terms = Terms::new();
        for (a, x) in self.terms() {
            for (b, y) in other.terms() {
                let mut monomial = [a, b].concat();
                monomial.sort();
                accumulate(&mut terms, monomial, x.checked_mul(y).ok_or_else(overflow)?)?;
            }
        }
        Ok(Self::sum(terms))
    }

    /// Quotient, rounded down.
    ///
    /// # Errors
    /// When the divisor is not positive.
    pub fn floor_div(&self, divisor: i64) -> Result<Self> {
        if divisor <= 0 {
            return Err(Error::Size(format!("division of an extent by {divisor}")));
        }
        if let Some(value) = self.known_i64() {
            return Ok(Self::constant(value.div_euclid(divisor)));
        }
        if divisor == 1 || self.is_unknown() {
            return Ok(self.clone());
        }
        // (divisor * a + b) / divisor = a + b / divisor, so whole multiples come out.
        let (mut whole, mut rest) = (Terms::new(), Terms::new());
        for (monomial, coefficient) in self.terms() {
            accumulate(&mut whole, monomial.to_vec(), coefficient.div_euclid(divisor))?;
            accumulate(&mut rest, monomial.to_vec(), coefficient.rem_euclid(divisor))?;
        }
        Self::sum(whole).add(&Self::sum(rest).floor_div_rest(divisor)?)
    }

    /// Quotient, rounded down, of a dividend whose coefficients are from 0 to below the divisor.
    fn floor_div_rest(&self, divisor: i64) -> Result<Self> {
        if self.known_i64().is_some() {
            return Ok(Self::constant(0));
        }
        // floor((g * a + b) / (g * d)) = floor((a + floor(b / g)) / d).
        let symbolic = self.terms().filter(|(monomial, _)| !monomial.is_empty());
        let common = symbolic.fold(divisor, |common, (_, coefficient)| gcd(common, coefficient));
        if common > 1 {
            let terms = self.terms().map(|(monomial, coefficient)| (monomial.to_vec(), coefficient / common));
            let reduced = Self::sum(terms.filter(|(_, coefficient)| *coefficient != 0).collect());
            return reduced.floor_div(divisor / common);
        }
        // floor((floor(a / c) + b) / d) = floor((a + c * b) / (c * d)).
        let nested = self.terms().find_map(|(monomial, coefficient)| match (monomial, coefficient) {
            ([Atom::FloorDiv(inner, by)], 1) => Some((inner, *by)),
            _ => None,
        });
        if let Some((inner, by)) = nested
            && let Some(product) = divisor.checked_mul(by)
        {
            let others = self.sub(&Self::atom(Atom::FloorDiv(inner.clone(), by)))?;
            if let Ok(dividend) = others.mul(&Self::constant(by)).and_then(|others| others.add(inner)) {
                return dividend.floor_div(product);
            }
        }
        Ok(Self::sum(Terms::from([(vec![Atom::FloorDiv(self.clone(), divisor)], 1)])))
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
        let mut divisors = divisor.terms();
        let (factors, coefficient) = divisors.next()?;
        if divisors.next().is_some() || self.is_unknown() || divisor.is_unknown() {
            return None;
        }
        let mut terms = Terms::new();
        for (monomial, dividend) in self.terms() {
            let mut rest = monomial.to_vec();
            for factor in factors {
                rest.remove(rest.iter().position(|atom| atom == factor)?);
            }
            if dividend.checked_rem(coefficient)? != 0 {
                return None;
            }
            terms.insert(rest, dividend.checked_div(coefficient)?);
        }
        Some(Self::sum(terms))
    }

    /// Names of the symbols in it, each once, sorted.
    pub fn symbols(&self) -> Vec<String> {
        let mut names = vec![];
        for atom in self.terms().flat_map(|(monomial, _)| monomial) {
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
        if bindings.is_empty() || self.known_i64().is_some() {
            return Ok(self.clone());
        }
        let mut sum = Self::constant(0);
        for (monomial, coefficient) in self.terms() {
            let mut product = Self::constant(coefficient);
            for atom in monomial {
                let factor = match atom {
                    Atom::Symbol(name) => match bindings.get(name.as_ref()) {
                        Some(&value) => Self::constant(i64::try_from(value).map_err(|_| overflow())?),
                        None => Self::atom(atom.clone()),
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

/// True for a symbol that is printed without quotes.
pub(crate) fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
        && name != "floor"
}

fn overflow() -> Error {
    Error::Size("arithmetic on extents overflows 64 bits".into())
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn accumulate(terms: &mut Terms, monomial: Vec<Atom>, coefficient: i64) -> Result<()> {
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
            Self::Symbol(name) if is_plain(name) || name.as_ref() == Dim::UNKNOWN => f.write_str(name),
            Self::Symbol(name) => write!(f, "{name:?}"),
            Self::FloorDiv(inner, divisor) => write!(f, "floor(({inner})/{divisor})"),
        }
    }
}

impl fmt::Display for Dim {
    /// `2*H*W + H - 1`: highest monomials first, the constant last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(value) = self.known_i64() {
            return write!(f, "{value}");
        }
        let mut terms: Vec<_> = self.terms().collect();
        terms.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(b.0)));
        for (i, (monomial, coefficient)) in terms.into_iter().enumerate() {
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
    fn division_has_a_normal_form() {
        let (h, w) = (Dim::symbol("H"), Dim::symbol("W"));
        // Two layers of stride 2 in a row, and one of stride 4.
        let half = h.add(&c(1)).unwrap().floor_div(2).unwrap();
        let quarter = half.add(&c(1)).unwrap().floor_div(2).unwrap();
        assert_eq!(quarter, h.add(&c(3)).unwrap().floor_div(4).unwrap());
        // Common factors and whole parts come out.
        let six = h.mul(&c(6)).unwrap().add(&c(5)).unwrap();
        assert_eq!(six.floor_div(4).unwrap(), h.add(&h.floor_div(2).unwrap()).unwrap().add(&c(1)).unwrap());
        for (a, b, constant, divisor) in [(3, -2, 7, 4), (4, 6, -9, 10), (-5, 1, 1, 3), (6, 9, 2, 12)] {
            let sum = h.mul(&c(a)).unwrap().add(&w.mul(&c(b)).unwrap()).unwrap().add(&c(constant)).unwrap();
            let quotient = sum.floor_div(divisor).unwrap();
            let nested = quotient.add(&w).unwrap().floor_div(5).unwrap();
            for (x, y) in (0..9).flat_map(|x| (0..9).map(move |y| (x, y))) {
                let bindings = Bindings::from([("H".into(), x as usize), ("W".into(), y as usize)]);
                let expected = (a * x + b * y + constant).div_euclid(divisor);
                assert_eq!(quotient.bind(&bindings).unwrap().known_i64(), Some(expected), "{quotient}");
                let expected = (expected + y).div_euclid(5);
                assert_eq!(nested.bind(&bindings).unwrap().known_i64(), Some(expected), "{nested}");
            }
        }
    }

    #[test]
    fn unknown_stays_unknown() {
        let unknown = Dim::unknown();
        assert!(unknown.sub(&unknown).unwrap().is_unknown());
        assert!(unknown.mul(&Dim::symbol("H")).unwrap().add(&c(3)).unwrap().is_unknown());
        assert!(unknown.floor_div(2).unwrap().is_unknown());
        assert_eq!(unknown.mul(&c(0)).unwrap(), c(0));
    }

    #[test]
    fn large_polynomials_become_unknown() {
        let mut dim = Dim::symbol("H").add(&c(1)).unwrap();
        let mut factor = 0;
        while !dim.is_unknown() {
            factor += 1;
            dim = dim.mul(&Dim::symbol(&format!("S{factor}")).add(&c(1)).unwrap()).unwrap();
            assert!(factor < 10);
        }
        assert!(factor > 2);
    }

    #[test]
    fn prints_readably() {
        let h = Dim::symbol("H");
        let text = h.mul(&c(2)).unwrap().sub(&c(1)).unwrap().to_string();
        assert_eq!(text, "2*H - 1");
        assert_eq!(h.sub(&h).unwrap().to_string(), "0");
        assert_eq!(Dim::symbol("2*n").mul(&c(3)).unwrap().to_string(), "3*\"2*n\"");
        assert_eq!(Dim::unknown().to_string(), "?");
    }

    #[test]
    fn overflow_is_an_error() {
        assert!(c(i64::MAX).add(&c(1)).is_err());
        assert!(c(i64::MAX).mul(&c(2)).is_err());
    }
}
