//! See `tconvc_fuzz::extent`.

#[test]
fn extent() {
    bolero::check!().for_each(tconvc_fuzz::extent);
}
