//! Proof by exhaustion, in exact integers, that the three forms of a transposed convolution are what they say: on every
//! small geometry each equals the definition and the transposed matrix of a convolution.

#[allow(clippy::unwrap_used, reason = "tests")]
mod common;

use common::{Case, eval};
use tconvc_ir::Tensor;
use tconvc_ir::ops::{ColumnGemm, ConvTranspose, Epilogue, Interleave, OverlapAdd, PhaseConv, ZeroInsert};

/// Evaluates every form of the case and compares it with the definition and with the matrix.
fn check(case: &Case) {
    let geometry = case.geometry();
    let (x, w, b) = (case.data(), case.weights(), case.bias());
    let expected = case.transposed_matrix_product(&x, &w, &b);
    let same = |what: &str, found: &Tensor| assert!(*found == expected, "{what} differs for {case:?}");

    let definition = ConvTranspose::from_geometry(&geometry, Epilogue::default());
    same("the definition", &eval(&definition, &[&x, &w, &b]));

    let (insert, conv) = ZeroInsert::from_geometry(&geometry, Epilogue::default()).expect("short sequence");
    same("zero-insertion", &eval(&conv, &[&eval(&insert, &[&x]), &case.flipped(&w), &b]));

    let phases = PhaseConv::from_geometry(&geometry);
    let interleave = Interleave::from_geometry(&geometry, Epilogue::default());
    assert_eq!(phases.geometry(x.shape(), w.shape()).as_ref(), Ok(&geometry));
    same("sub-pixel", &eval(&interleave, &[&eval(&phases, &[&x, &w, &b])]));

    let columns = ColumnGemm::from_geometry(&geometry);
    let overlap = OverlapAdd::from_geometry(&geometry, Epilogue::default());
    assert_eq!(overlap.geometry(&columns, x.shape(), w.shape()).as_ref(), Ok(&geometry));
    same("scatter", &eval(&overlap, &[&eval(&columns, &[&x, &w]), &b]));
}

#[test]
fn one_axis() {
    for axis in common::axes(1..=4, 1..=4, 1..=4, 1..=3, -2..=3, -3..=3) {
        for [batch, groups, inputs, outputs] in [[1, 1, 1, 1], [2, 1, 2, 3], [1, 2, 4, 2], [1, 3, 3, 3]] {
            check(&Case { batch, groups, inputs, outputs, axes: vec![axis] });
        }
    }
}
