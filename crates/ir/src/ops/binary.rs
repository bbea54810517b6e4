//! Elementwise operators of two inputs that broadcast: arithmetic, comparison, logic, bits, PRelu.

use super::support::broadcast::{broadcast_inputs, broadcast_shapes, broadcast_walk, broadcasts_to};
use super::support::inputs::{
    at_most, check_dtype, check_size, common_dtype, extents, optional, required, unwrapped,
};
use super::support::number::{Number, Scalar};
use super::support::runs::{compare_f32, zip_f32};
use super::support::values::scalars;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

macro_rules! binary {
    ($($variant:ident $({ $($field:ident),* })?),* $(,)?) => {
        /// An elementwise operator of two inputs, which broadcast as NumPy's do.
        ///
        /// `A, B -> C`; `PRelu` is `X, slope -> Y` with the shape of `X`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Binary {
            $(
                #[doc = concat!("ONNX `", stringify!($variant), "`.")]
                $variant $({ $(
                    #[doc = "`Mod`: remainder with the dividend's sign, as C has it. `BitShift`: to the right."]
                    $field: bool
                ),* })?,
            )*
        }

        impl Binary {
            /// Every binary operator, flags unset.
            pub const ALL: &[Self] = &[$(Self::$variant $({ $($field: false),* })?),*];

            /// ONNX's name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant { .. } => stringify!($variant),)* }
            }
        }
    };
}

binary! {
    Add, Sub, Mul, Div, Pow, Mod { fmod }, PRelu,
    Equal, Greater, GreaterOrEqual, Less, LessOrEqual,
    And, Or, Xor, BitwiseAnd, BitwiseOr, BitwiseXor, BitShift { right },
}

impl Binary {
    /// Reads the operator of that name; `Ok(None)` when the name is no binary operator's.
    ///
    /// # Errors
    /// When an attribute is missing, unknown or out of range.
    pub fn read(name: &str, mut attributes: Attributes) -> Result<Option<Self>> {
        let Some(&plain) = Self::ALL.iter().find(|op| op.name() == name) else { return Ok(None) };
        let (op, accepted) = match plain {
            Self::Mod { .. } => (Self::Mod { fmod: attributes.flag("fmod", false)? }, "fmod"),
            Self::BitShift { .. } => {
                let right = match attributes.string("direction")?.as_deref() {
                    Some("LEFT") => false,
                    Some("RIGHT") => true,
                    other => {
                        let found = other.unwrap_or("nothing");
                        return Err(Error::attribute(
                            "direction",
                            format!("expected LEFT or RIGHT, found {found}"),
                        ));
                    }
                };
                (Self::BitShift { right }, "direction")
            }
            plain => (plain, "none"),
        };
        attributes.finish(accepted)?;
        Ok(Some(op))
    }

    /// True for operators whose result is a truth value.
    pub const fn is_comparison(self) -> bool {
        matches!(self, Self::Equal | Self::Greater | Self::GreaterOrEqual | Self::Less | Self::LessOrEqual)
    }

    /// True when swapping the inputs changes nothing.
    pub const fn is_commutative(self) -> bool {
        matches!(
            self,
            Self::Add
                | Self::Mul
                | Self::Equal
                | Self::And
                | Self::Or
                | Self::Xor
                | Self::BitwiseAnd
                | Self::BitwiseOr
                | Self::BitwiseXor
        )
    }

    /// What the inputs may be, and in words.
    fn accepts(self, dtype: DType) -> (bool, &'static str) {
        match self {
            Self::And | Self::Or | Self::Xor => (dtype == DType::Bool, "bool"),
            Self::Equal => {
                (dtype.is_numeric() || matches!(dtype, DType::Bool | DType::String), "numbers, bool or str")
            }
            Self::BitwiseAnd | Self::BitwiseOr | Self::BitwiseXor => (dtype.is_integer(), "integers"),
            Self::BitShift { .. } => (dtype.is_integer(), "integers"),
            _ => (dtype.is_numeric(), "numbers"),
        }
    }

    /// Element type of the output, as far as the inputs' are known.
    ///
    /// # Errors
    /// When the operator does not take these types.
    pub fn output_dtype(self, a: Option<DType>, b: Option<DType>) -> Result<Option<DType>> {
        let (left, right) = if self == Self::PRelu { ("X", "slope") } else { ("A", "B") };
        for (index, name, dtype) in [(0, left, a), (1, right, b)] {
            let words = dtype.map_or("", |dtype| self.accepts(dtype).1);
            check_dtype(index, name, dtype, |dtype| self.accepts(dtype).0, words)?;
        }
        if self == Self::Pow {
            return Ok(a);
        }
        let common = common_dtype(&[(0, left, a), (1, right, b)])?;
        Ok(if self.is_comparison() { Some(DType::Bool) } else { common })
    }

    /// The function on two elements of one number type, for operators that keep the type.
    fn arithmetic<T: Number>(self) -> fn(T, T) -> T {
        fn bits<T: Number>(a: T, b: T, f: fn(i128, i128) -> i128) -> T {
            match (a.to_scalar(), b.to_scalar()) {
                (Scalar::Int(a), Scalar::Int(b)) => T::from_scalar(Scalar::Int(f(a, b))),
                _ => a,
            }
        }
        match self {
            Self::Add => T::add,
            Self::Sub => T::sub,
            Self::Mul => T::mul,
            Self::Div => T::div,
            Self::Pow => |a, b| a.power(b.to_scalar()),
            Self::Mod { fmod: false } => T::modulo,
            Self::Mod { fmod: true } => T::fmod,
            Self::PRelu => |x, slope| if x < T::from_f64(0.0) { x.mul(slope) } else { x },
            Self::BitwiseAnd => |a, b| bits(a, b, |a, b| a & b),
            Self::BitwiseOr => |a, b| bits(a, b, |a, b| a | b),
            Self::BitwiseXor => |a, b| bits(a, b, |a, b| a ^ b),
            // A shift by the width or more leaves nothing, or the sign; so does one by less than nothing.
            Self::BitShift { right: false } => {
                |a, b| bits(a, b, |a, b| if (0..64).contains(&b) { a << b } else { 0 })
            }
            Self::BitShift { right: true } => {
                |a, b| bits(a, b, |a, b| a >> if (0..64).contains(&b) { b } else { 127 })
            }
            // Truth values, which have no number type.
            Self::And | Self::Or | Self::Xor => |a, _| a,
            Self::Equal | Self::Greater | Self::GreaterOrEqual | Self::Less | Self::LessOrEqual => |a, _| a,
        }
    }

    /// The function on two elements, for comparisons.
    fn comparison<T: PartialOrd>(self) -> fn(&T, &T) -> bool {
        match self {
            Self::Greater => T::gt,
            Self::GreaterOrEqual => T::ge,
            Self::Less => T::lt,
            Self::LessOrEqual => T::le,
            _ => T::eq,
        }
    }

    /// The function on two truth values.
    fn logic(self, a: bool, b: bool) -> bool {
        match self {
            Self::And => a & b,
            Self::Or => a | b,
            Self::Xor => a ^ b,
            _ => a == b,
        }
    }
}

impl Operator for Binary {
    fn name(&self) -> &str {
        Self::name(*self)
    }

    fn attributes(&self) -> Attributes {
        match self {
            Self::Mod { fmod: true } => Attributes::new().with("fmod", true),
            Self::BitShift { right } => {
                Attributes::new().with("direction", if *right { "RIGHT" } else { "LEFT" })
            }
            _ => Attributes::new(),
        }
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        let dtype = self.output_dtype(a.ty.dtype, b.ty.dtype)?;
        let shape = broadcast_inputs(&[a, b])?;
        if *self != Self::PRelu {
            return Ok(vec![ValueType { dtype, shape }]);
        }
        if let (Some(x), Some(slope)) = (a.ty.known_shape(), b.ty.known_shape())
            && !broadcasts_to(&slope, &x)
        {
            return Err(slope_error(&slope, &x));
        }
        Ok(vec![ValueType { dtype, shape: a.ty.shape.clone() }])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        let (a, b) = (extents(inputs.first()?.as_ref()?)?, extents(inputs.get(1)?.as_ref()?)?);
        let count = match (a.len(), b.len()) {
            (1, n) | (n, 1) => n,
            (n, m) if n == m => n,
            _ => return None,
        };
        let pick = |dims: &[Dim], i: usize| dims[if dims.len() == 1 { 0 } else { i }].clone();
        let dims = (0..count).map(|i| self.on_extents(&pick(&a, i), &pick(&b, i))).collect::<Option<_>>()?;
        unwrapped(dims, optional(inputs, 0)?.ty.dtype)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 2)?;
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        self.output_dtype(Some(a.dtype()), Some(b.dtype()))?;
        if *self == Self::PRelu && !broadcasts_to(b.shape(), a.shape()) {
            return Err(slope_error(b.shape(), a.shape()));
        }
        let shape = broadcast_shapes(&[a.shape(), b.shape()])?;
        check_size(a.dtype(), &shape)?;
        let pairs = broadcast_walk(a.shape(), &shape).zip(broadcast_walk(b.shape(), &shape));
        if a.dtype() == DType::Bool {
            let (a, b) = (a.bytes(), b.bytes());
            let truth = pairs.map(|(i, j)| self.logic(a[i] != 0, b[j] != 0));
            return Ok(vec![Tensor::from_bools(shape.clone(), truth)?]);
        }
        if a.dtype() == DType::String {
            let (a, b) = (a.strings()?, b.strings()?);
            return Ok(vec![Tensor::from_bools(shape.clone(), pairs.map(|(i, j)| a[i] == b[j]))?]);
        }
        let by_runs = match self {
            Self::Add => zip_f32(a, b, &shape, |x, y| x + y)?,
            Self::Sub => zip_f32(a, b, &shape, |x, y| x - y)?,
            Self::Mul => zip_f32(a, b, &shape, |x, y| x * y)?,
            Self::Div => zip_f32(a, b, &shape, |x, y| x / y)?,
            Self::Greater => compare_f32(a, b, &shape, f32::gt)?,
            Self::GreaterOrEqual => compare_f32(a, b, &shape, f32::ge)?,
            Self::Less => compare_f32(a, b, &shape, f32::lt)?,
            Self::LessOrEqual => compare_f32(a, b, &shape, f32::le)?,
            Self::Equal => compare_f32(a, b, &shape, f32::eq)?,
            _ => None,
        };
        if let Some(result) = by_runs {
            return Ok(vec![result]);
        }
        dispatch_numeric!(a.dtype(), T => {
            let x = a.elements::<T>()?;
            if a.dtype() != b.dtype() {
                let exponents = scalars(b)?;
                let powers = pairs.map(|(i, j)| x[i].power(exponents[j])).collect();
                return Ok(vec![Tensor::from_vec(shape.clone(), powers)?]);
            }
            let y = b.elements::<T>()?;
            if self.is_comparison() {
                let compare = self.comparison::<T>();
                let truth = pairs.map(|(i, j)| compare(&x[i], &y[j]));
                return Ok(vec![Tensor::from_bools(shape.clone(), truth)?]);
            }
            let f = self.arithmetic::<T>();
            let results = pairs.map(|(i, j)| f(x[i], y[j])).collect();
            Ok(vec![Tensor::from_vec(shape.clone(), results)?])
        })
    }
}

fn slope_error(slope: &[usize], x: &[usize]) -> Error {
    Error::input(1, "slope", format!("shape {slope:?} does not broadcast to that of X, {x:?}"))
}

impl Binary {
    /// The operator on extents, where they can express it.
    fn on_extents(self, a: &Dim, b: &Dim) -> Option<Dim> {
        if let (Some(a), Some(b)) = (a.known_i64(), b.known_i64()) {
            let defined = b != 0 || !matches!(self, Self::Div | Self::Mod { .. });
            return match self {
                Self::Add | Self::Sub | Self::Mul | Self::Div | Self::Mod { .. } if defined => {
                    Some(Dim::constant(self.arithmetic::<i64>()(a, b)))
                }
                _ => None,
            };
        }
        if a.is_unknown() || b.is_unknown() {
            return Some(Dim::unknown());
        }
        match self {
            Self::Add => a.add(b).ok(),
            Self::Sub => a.sub(b).ok(),
            Self::Mul => a.mul(b).ok(),
            // Extents round down, integers toward zero: the same for what cannot be negative.
            Self::Div if a.is_never_negative() => a.floor_div(b.known_i64()?).ok(),
            Self::Mod { .. } if a.is_never_negative() => {
                let whole = a.floor_div(b.known_i64()?).ok()?;
                a.sub(&whole.mul(b).ok()?).ok()
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(op: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        op.eval(&[Some(a), Some(b)], 1).map(|mut outputs| outputs.remove(0))
    }

    fn ints(values: &[i64]) -> Tensor {
        Tensor::from_i64s(values)
    }

    #[test]
    fn attributes_read_back() {
        let flagged = [Binary::Mod { fmod: true }, Binary::BitShift { right: true }];
        for op in Binary::ALL.iter().copied().chain(flagged) {
            assert_eq!(Binary::read(op.name(), Operator::attributes(&op)), Ok(Some(op)));
        }
        assert_eq!(Binary::read("Relu", Attributes::new()), Ok(None));
        assert!(Binary::read("Add", Attributes::new().with("axis", 1)).is_err());
        assert!(Binary::read("BitShift", Attributes::new()).is_err());
    }

    #[test]
    fn every_operator_on_integers() {
        let (a, b) = (ints(&[7, -7, 5]), ints(&[2]));
        for (op, expected) in [
            (Binary::Add, [9, -5, 7]),
            (Binary::Sub, [5, -9, 3]),
            (Binary::Mul, [14, -14, 10]),
            (Binary::Div, [3, -3, 2]),
            (Binary::Pow, [49, 49, 25]),
            (Binary::Mod { fmod: false }, [1, 1, 1]),
            (Binary::Mod { fmod: true }, [1, -1, 1]),
            (Binary::PRelu, [7, -14, 5]),
            (Binary::BitwiseAnd, [2, 0, 0]),
            (Binary::BitwiseOr, [7, -5, 7]),
            (Binary::BitwiseXor, [5, -5, 7]),
        ] {
            assert_eq!(eval(op, &a, &b).unwrap(), ints(&expected), "{op:?}");
        }
        for (op, expected) in [
            (Binary::Equal, [false, false, false]),
            (Binary::Greater, [true, false, true]),
            (Binary::GreaterOrEqual, [true, false, true]),
            (Binary::Less, [false, true, false]),
            (Binary::LessOrEqual, [false, true, false]),
        ] {
            assert_eq!(eval(op, &a, &b).unwrap(), Tensor::from_bools([3], expected).unwrap(), "{op:?}");
        }
        let bytes = Tensor::from_vec([2], vec![200u8, 3]).unwrap();
        let by = Tensor::from_vec([2], vec![1u8, 1]).unwrap();
        let left = eval(Binary::BitShift { right: false }, &bytes, &by).unwrap();
        assert_eq!(left, Tensor::from_vec([2], vec![144u8, 6]).unwrap());
        let right = eval(Binary::BitShift { right: true }, &bytes, &by).unwrap();
        assert_eq!(right, Tensor::from_vec([2], vec![100u8, 1]).unwrap());
    }

    #[test]
    fn truth_tables() {
        let a = Tensor::from_bools([4], [false, false, true, true]).unwrap();
        let b = Tensor::from_bools([4], [false, true, false, true]).unwrap();
        for (op, expected) in [
            (Binary::And, [false, false, false, true]),
            (Binary::Or, [false, true, true, true]),
            (Binary::Xor, [false, true, true, false]),
            (Binary::Equal, [true, false, false, true]),
        ] {
            assert_eq!(eval(op, &a, &b).unwrap(), Tensor::from_bools([4], expected).unwrap(), "{op:?}");
        }
        assert!(eval(Binary::Add, &a, &b).is_err());
    }

    #[test]
    fn signed_integers_shift_by_any_number() {
        let (x, by) = (ints(&[-8, -8, -8, 5]), ints(&[1, 70, -1, i64::MIN]));
        assert_eq!(eval(Binary::BitShift { right: true }, &x, &by).unwrap(), ints(&[-4, -1, -1, 0]));
        assert_eq!(eval(Binary::BitShift { right: false }, &x, &by).unwrap(), ints(&[-16, 0, 0, 0]));
    }

    #[test]
    fn strings_are_equal_or_not() {
        let texts = |texts: &[&str]| {
            Tensor::from_strings([texts.len()], texts.iter().map(|text| text.as_bytes())).unwrap()
        };
        let y = eval(Binary::Equal, &texts(&["a", "bc", ""]), &texts(&["bc"])).unwrap();
        assert_eq!(y, Tensor::from_bools([3], [false, true, false]).unwrap());
    }

    #[test]
    fn remainders_of_floats_have_the_sign_of_the_divisor() {
        let floats = |values: &[f32]| Tensor::from_vec([values.len()], values.to_vec()).unwrap();
        let x = floats(&[-4.5, 4.5, -0.0, 3.0, f32::INFINITY, 3.0]);
        let y = floats(&[3.0, -3.0, 2.0, f32::NEG_INFINITY, 1.0, 0.0]);
        let z = eval(Binary::Mod { fmod: false }, &x, &y).unwrap();
        let z = z.elements::<f32>().unwrap().to_vec();
        assert_eq!(z[..4], [1.5, -1.5, 0.0, f32::NEG_INFINITY]);
        assert!(z[2].is_sign_positive() && z[4].is_nan() && z[5].is_nan());
    }

    #[test]
    fn nan_compares_false_and_passes_arithmetic() {
        let nan = Tensor::scalar(f32::NAN);
        let false_ = Tensor::from_bools([], [false]).unwrap();
        for op in [Binary::Equal, Binary::Greater, Binary::LessOrEqual] {
            assert_eq!(eval(op, &nan, &nan).unwrap(), false_);
        }
        assert!(eval(Binary::PRelu, &nan, &Tensor::scalar(0f32)).unwrap().to_f64s().unwrap()[0].is_nan());
    }

    #[test]
    fn shapes_broadcast_and_slopes_only_one_way() {
        let column = Tensor::from_vec([2, 1], vec![10f32, 20.0]).unwrap();
        let row = Tensor::from_vec([3], vec![1f32, 2.0, 3.0]).unwrap();
        let sum = eval(Binary::Add, &column, &row).unwrap();
        assert_eq!(sum, Tensor::from_vec([2, 3], vec![11f32, 12.0, 13.0, 21.0, 22.0, 23.0]).unwrap());
        assert!(eval(Binary::PRelu, &row, &column).is_err());
        assert!(eval(Binary::Add, &row, &ints(&[1, 2, 3])).is_err());
        let power = eval(Binary::Pow, &row, &ints(&[2])).unwrap();
        assert_eq!(power, Tensor::from_vec([3], vec![1f32, 4.0, 9.0]).unwrap());
    }

    #[test]
    fn shape_computations_stay_symbolic() {
        let ty = ValueType::new(DType::I64, [2usize]);
        let (h, three) = (Dim::symbol("H"), [Dim::constant(3)]);
        let dims = [h.clone(), Dim::constant(7)];
        let info = |extents| Some(InputInfo { ty: &ty, constant: None, extents: Some(extents) });
        let inputs = [info(&dims[..]), info(&three[..])];
        let result =
            |op: Binary| op.infer_extents(&inputs).map(|dims| dims.iter().map(Dim::to_string).collect());
        let expected = |texts: [&str; 2]| Some(texts.map(str::to_owned).to_vec());
        assert_eq!(result(Binary::Add), expected(["H + 3", "10"]));
        assert_eq!(result(Binary::Mul), expected(["3*H", "21"]));
        assert_eq!(result(Binary::Div), expected(["floor((H)/3)", "2"]));
        assert_eq!(result(Binary::Pow), None);
        let negative = [h.sub(&Dim::constant(9)).unwrap()];
        assert_eq!(Binary::Div.infer_extents(&[info(&negative[..]), info(&three[..])]), None);
    }
}
