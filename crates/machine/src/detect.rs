//! The questions that are asked of this machine's processor; those about its caches are in [`crate::caches`].

use crate::X86Level;

/// The highest level that this machine has all of; nothing where it is not an x86-64.
pub(crate) fn x86_level() -> Option<X86Level> {
    cfg!(target_arch = "x86_64").then(level_by_features)
}

#[cfg(not(target_arch = "x86_64"))]
fn level_by_features() -> X86Level {
    X86Level::V1
}

#[cfg(target_arch = "x86_64")]
fn level_by_features() -> X86Level {
    use std::is_x86_feature_detected as has;
    let v2 = has!("sse4.2") && has!("sse4.1") && has!("ssse3") && has!("popcnt");
    let v3 = v2
        && (has!("avx2") && has!("fma") && has!("f16c"))
        && (has!("bmi1") && has!("bmi2") && has!("lzcnt") && has!("movbe"));
    let v4 = v3
        && (has!("avx512f") && has!("avx512bw") && has!("avx512cd"))
        && (has!("avx512dq") && has!("avx512vl"));
    match (v2, v3, v4) {
        (_, _, true) => X86Level::V4,
        (_, true, _) => X86Level::V3,
        (true, ..) => X86Level::V2,
        _ => X86Level::V1,
    }
}

/// Whether sums of products of bytes are one instruction beside AVX-512, which no level promises.
#[cfg(target_arch = "x86_64")]
pub(crate) fn dot_products() -> bool {
    std::is_x86_feature_detected!("avx512vnni")
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn dot_products() -> bool {
    false
}
