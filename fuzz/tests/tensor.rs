//! See `tconvc_fuzz::tensor`.

#[test]
fn tensor() {
    bolero::check!().for_each(tconvc_fuzz::tensor);
}
