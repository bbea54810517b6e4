//! The innermost loop of definitions in whole numbers. It stands here because this crate is optimised in builds for tests.

/// `y[o] += x[i] * w[k]` for every `[i, k, o]`.
///
/// # Panics
/// When an index is out of bounds.
pub fn add_products(y: &mut [i32], x: &[i32], w: &[i32], indices: &[[u32; 3]]) {
    for &[i, k, o] in indices {
        y[o as usize] += x[i as usize] * w[k as usize];
    }
}
