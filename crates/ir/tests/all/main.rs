//! Tests of the crate from outside, in one program, because each is linked on its own.
//!
//! Modules with helpers are under `cfg(test)`: there clippy lets these unwrap, as it lets tests.

#[cfg(test)]
mod common;
mod conformance;
mod convolutions;
mod data_operators;
mod forms;
mod onnx_damage;
mod onnx_forms;
mod onnx_import;
#[cfg(test)]
mod onnx_microsoft;
mod onnx_models;
#[cfg(test)]
mod onnx_scan;
#[cfg(test)]
mod onnx_sequences;
mod onnx_upgrade;
mod operators;
mod text;
