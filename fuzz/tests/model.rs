//! See `tconvc_fuzz::model`.

#[test]
fn model() {
    bolero::check!().for_each(tconvc_fuzz::model);
}
