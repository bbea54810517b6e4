//! See `tconvc_fuzz::passes`.

#[test]
fn passes() {
    bolero::check!().for_each(tconvc_fuzz::passes);
}
