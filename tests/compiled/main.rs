//! Compiled programs against the definition: every small geometry and random larger ones in exact integers, random
//! networks and the trained ones against the reference interpreter, under every form and every target that runs here.
//!
//! `TCONVC_GEOMETRIES=10000` sets the number of random geometries and, a tenth of it, of random networks.
#![expect(clippy::unwrap_used, reason = "tests")]

mod dynamic;
mod epilogue;
mod filtering;
mod geometries;
mod layer;
mod models;
mod networks;
mod support;
