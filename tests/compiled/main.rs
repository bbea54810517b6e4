//! Compiled programs against the definition: every small geometry and random larger ones in exact integers, random
//! networks and the trained ones against the reference interpreter, under every form and every target that runs here; then
//! all of these again on memory between pages that must not be touched.
//!
//! `TCONVC_GEOMETRIES=10000` sets the number of random geometries and, a tenth of it, of random networks.
//!
//! Modules with helpers are under `cfg(test)`: there clippy lets these unwrap, as it lets tests.

#[cfg(test)]
mod any_convolution;
#[cfg(test)]
mod budgets;
#[cfg(test)]
mod control;
#[cfg(test)]
mod defaults;
#[cfg(test)]
mod dynamic;
#[cfg(test)]
mod epilogue;
#[cfg(test)]
mod exports;
mod geometries;
#[cfg(test)]
#[cfg(unix)]
mod guard;
#[cfg(test)]
mod interpreted;
#[cfg(test)]
mod large;
#[cfg(test)]
mod layer;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod models;
mod networks;
#[cfg(test)]
mod numerics;
mod products;
#[cfg(test)]
mod quantised_exports;
mod run_time_weights;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod short_types;
#[cfg(test)]
mod split_k;
#[cfg(test)]
mod stages;
#[cfg(test)]
mod support;
#[cfg(test)]
mod text;
#[cfg(test)]
mod threads;
mod winograd;
