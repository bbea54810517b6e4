//! Inputs for a graph, and results against results.

use tconvc_ir::{Bindings, DType, Graph, Result, Tensor, interp, text};

/// Tensors for all inputs of a graph, by name, that depend on the seed alone. Symbols become 3, 4, .. in the order of
/// [`Graph::symbols`]; an extent that is unknown becomes 3.
///
/// # Errors
/// When an extent overflows or becomes negative.
pub fn inputs(graph: &Graph, seed: u64) -> Result<Vec<(String, Tensor)>> {
    let bindings: Bindings = graph.symbols().into_iter().zip(3..).collect();
    let tensor = |(position, &id): (usize, _)| {
        let value = graph.value(id);
        let shape = value.ty.shape.iter().flatten().map(|dim| {
            let bound = dim.bind(&bindings)?;
            Ok(if bound.is_unknown() { 3 } else { bound.known().unwrap_or(0) })
        });
        let shape = shape.collect::<Result<Vec<usize>>>()?;
        let dtype = value.ty.dtype.unwrap_or(DType::F32);
        Ok((value.name.clone(), text::seeded(dtype, &shape, seed.wrapping_add(position as u64))?))
    };
    graph.inputs().iter().enumerate().map(tensor).collect()
}

/// Checks that two lists of named results are equal: floats up to `tolerance` times the largest magnitude expected in
/// their tensor (at least 1), all else exactly. NaN equals NaN.
///
/// # Errors
/// Says which tensor and element differ, and by how much.
pub fn check_close(
    actual: &[(String, Tensor)],
    expected: &[(String, Tensor)],
    tolerance: f64,
) -> Result<(), String> {
    let names = |list: &[(String, Tensor)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    if names(actual) != names(expected) {
        return Err(format!("outputs are {:?}, expected {:?}", names(actual), names(expected)));
    }
    for ((name, actual), (_, expected)) in actual.iter().zip(expected) {
        let kind = |tensor: &Tensor| format!("{}{:?}", tensor.dtype(), tensor.shape());
        if kind(actual) != kind(expected) {
            return Err(format!("`{name}` is {}, expected {}", kind(actual), kind(expected)));
        }
        if !expected.dtype().is_float() {
            if actual != expected {
                return Err(format!("`{name}` differs"));
            }
            continue;
        }
        let numbers = |tensor: &Tensor| tensor.to_f64s().map_err(|error| error.to_string());
        let (actual, expected) = (numbers(actual)?, numbers(expected)?);
        let largest = expected.iter().filter(|x| x.is_finite()).fold(1f64, |largest, x| largest.max(x.abs()));
        for (i, (&a, &e)) in actual.iter().zip(&expected).enumerate() {
            let equal = a == e || (a.is_nan() && e.is_nan()) || (a - e).abs() <= tolerance * largest;
            if !equal {
                return Err(format!("element {i} of `{name}` is {a}, expected {e} (largest {largest})"));
            }
        }
    }
    Ok(())
}

/// Checks that a graph computes what it did before it was rewritten, on seeded inputs.
///
/// # Errors
/// When the original cannot be evaluated, or the rewritten one gives something else.
pub fn check_same_meaning(before: &Graph, after: &Graph, tolerance: f64) -> Result<(), String> {
    let inputs = inputs(before, 1).map_err(|error| error.to_string())?;
    let named: Vec<(&str, Tensor)> =
        inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    let expected = interp::run(before, &named).map_err(|error| format!("before: {error}"))?;
    let actual = interp::run(after, &named).map_err(|error| format!("after: {error}"))?;
    check_close(&actual, &expected, tolerance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(values: Vec<f32>) -> Vec<(String, Tensor)> {
        vec![("y".into(), Tensor::from_vec([values.len()], values).unwrap())]
    }

    #[test]
    fn differences_are_told() {
        let expected = results(vec![100.0, f32::NAN, f32::INFINITY]);
        check_close(&results(vec![100.01, f32::NAN, f32::INFINITY]), &expected, 1e-3).unwrap();
        let error = check_close(&results(vec![101.0, f32::NAN, f32::INFINITY]), &expected, 1e-3).unwrap_err();
        assert_eq!(error, "element 0 of `y` is 101, expected 100 (largest 100)");
        assert!(check_close(&results(vec![100.0, 0.0, f32::INFINITY]), &expected, 1e-3).is_err());
        assert!(check_close(&results(vec![100.0, f32::NAN, f32::NEG_INFINITY]), &expected, 1e-3).is_err());
        assert!(check_close(&results(vec![1.0]), &expected, 1e9).is_err());
        assert!(check_close(&[], &expected, 1e9).is_err());
    }

    #[test]
    fn symbols_are_given_small_extents() {
        let graph: Graph = "input %x : f32[N, 2*H, ?]\ninput %y : i64[H]\noutput %x".parse().unwrap();
        let inputs = inputs(&graph, 5).unwrap();
        assert_eq!(inputs[0].1.shape(), [3, 8, 3]);
        assert_eq!((inputs[1].1.dtype(), inputs[1].1.shape()), (DType::I64, [4].as_slice()));
        check_same_meaning(&graph, &graph, 0.0).unwrap();
    }
}
