//! Which machine instruction does what: for each operation the 256-bit VEX and the 512-bit EVEX encoding.

use iced_x86::Code;

use crate::{BinaryOp, Cmp, Elem, FmaOp, ShiftOp};
use tconvc_machine::Isa;

/// One of two encodings.
macro_rules! pick {
    ($isa:expr, $vex:ident, $evex:ident) => {
        if $isa == Isa::X86V4 { Code::$evex } else { Code::$vex }
    };
}

pub(super) fn binary(op: BinaryOp, isa: Isa) -> Code {
    match op {
        BinaryOp::Add => pick!(isa, VEX_Vaddps_ymm_ymm_ymmm256, EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er),
        BinaryOp::Sub => pick!(isa, VEX_Vsubps_ymm_ymm_ymmm256, EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er),
        BinaryOp::Mul => pick!(isa, VEX_Vmulps_ymm_ymm_ymmm256, EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er),
        BinaryOp::Div => pick!(isa, VEX_Vdivps_ymm_ymm_ymmm256, EVEX_Vdivps_zmm_k1z_zmm_zmmm512b32_er),
        BinaryOp::Max => pick!(isa, VEX_Vmaxps_ymm_ymm_ymmm256, EVEX_Vmaxps_zmm_k1z_zmm_zmmm512b32_sae),
        BinaryOp::Min => pick!(isa, VEX_Vminps_ymm_ymm_ymmm256, EVEX_Vminps_zmm_k1z_zmm_zmmm512b32_sae),
        BinaryOp::And => pick!(isa, VEX_Vandps_ymm_ymm_ymmm256, EVEX_Vandps_zmm_k1z_zmm_zmmm512b32),
        BinaryOp::Or => pick!(isa, VEX_Vorps_ymm_ymm_ymmm256, EVEX_Vorps_zmm_k1z_zmm_zmmm512b32),
        BinaryOp::Xor => pick!(isa, VEX_Vxorps_ymm_ymm_ymmm256, EVEX_Vxorps_zmm_k1z_zmm_zmmm512b32),
        BinaryOp::IntAdd => pick!(isa, VEX_Vpaddd_ymm_ymm_ymmm256, EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32),
        BinaryOp::IntSub => pick!(isa, VEX_Vpsubd_ymm_ymm_ymmm256, EVEX_Vpsubd_zmm_k1z_zmm_zmmm512b32),
        BinaryOp::IntMul => pick!(isa, VEX_Vpmulld_ymm_ymm_ymmm256, EVEX_Vpmulld_zmm_k1z_zmm_zmmm512b32),
        BinaryOp::IntMax => pick!(isa, VEX_Vpmaxsd_ymm_ymm_ymmm256, EVEX_Vpmaxsd_zmm_k1z_zmm_zmmm512b32),
        BinaryOp::IntMin => pick!(isa, VEX_Vpminsd_ymm_ymm_ymmm256, EVEX_Vpminsd_zmm_k1z_zmm_zmmm512b32),
    }
}

pub(super) fn fma(op: FmaOp, isa: Isa) -> Code {
    match op {
        FmaOp::Add => pick!(isa, VEX_Vfmadd231ps_ymm_ymm_ymmm256, EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er),
        FmaOp::Sub => {
            pick!(isa, VEX_Vfnmadd231ps_ymm_ymm_ymmm256, EVEX_Vfnmadd231ps_zmm_k1z_zmm_zmmm512b32_er)
        }
        FmaOp::Horner => {
            pick!(isa, VEX_Vfmadd213ps_ymm_ymm_ymmm256, EVEX_Vfmadd213ps_zmm_k1z_zmm_zmmm512b32_er)
        }
    }
}

pub(super) fn shift(op: ShiftOp, isa: Isa) -> Code {
    match op {
        ShiftOp::Left => pick!(isa, VEX_Vpslld_ymm_ymm_imm8, EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8),
        ShiftOp::Right => pick!(isa, VEX_Vpsrld_ymm_ymm_imm8, EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8),
        ShiftOp::RightSigned => pick!(isa, VEX_Vpsrad_ymm_ymm_imm8, EVEX_Vpsrad_zmm_k1z_zmmm512b32_imm8),
    }
}

/// The predicate of `vcmpps`, quiet.
pub(super) fn predicate(cmp: Cmp) -> i32 {
    match cmp {
        Cmp::Eq => 0x00,
        Cmp::Ne => 0x04,
        Cmp::Lt => 0x11,
        Cmp::Le => 0x12,
        Cmp::Ge => 0x1d,
        Cmp::Gt => 0x1e,
    }
}

pub(super) fn load(isa: Isa) -> Code {
    pick!(isa, VEX_Vmovups_ymm_ymmm256, EVEX_Vmovups_zmm_k1z_zmmm512)
}

pub(super) fn store(isa: Isa) -> Code {
    pick!(isa, VEX_Vmovups_ymmm256_ymm, EVEX_Vmovups_zmmm512_k1z_zmm)
}

/// AVX-512: the load of the shortest vector that has so many lanes.
pub(super) fn load_short(lanes: u8) -> Code {
    match lanes {
        0..=4 => Code::EVEX_Vmovups_xmm_k1z_xmmm128,
        5..=8 => Code::EVEX_Vmovups_ymm_k1z_ymmm256,
        _ => load(Isa::X86V4),
    }
}

/// The lowest two, four and, of sixteen lanes, eight to memory.
pub(super) fn store_two(isa: Isa) -> Code {
    pick!(isa, VEX_Vmovlps_m64_xmm, EVEX_Vmovlps_m64_xmm)
}

pub(super) fn store_four(isa: Isa) -> Code {
    pick!(isa, VEX_Vmovups_xmmm128_xmm, EVEX_Vmovups_xmmm128_k1z_xmm)
}

pub(super) const STORE_EIGHT: Code = Code::EVEX_Vmovups_ymmm256_k1z_ymm;

/// The upper eight of sixteen lanes.
pub(super) const EXTRACT_EIGHT: Code = Code::EVEX_Vextractf64x4_ymmm256_k1z_zmm_imm8;

pub(super) fn copy(isa: Isa) -> Code {
    pick!(isa, VEX_Vmovaps_ymm_ymmm256, EVEX_Vmovaps_zmm_k1z_zmmm512)
}

pub(super) fn load_splat(isa: Isa) -> Code {
    pick!(isa, VEX_Vbroadcastss_ymm_m32, EVEX_Vbroadcastss_zmm_k1z_xmmm32)
}

/// Of a register with itself, which no processor waits for.
pub(super) fn zero(isa: Isa) -> Code {
    pick!(isa, VEX_Vpxor_ymm_ymm_ymmm256, EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32)
}

pub(super) fn sqrt(isa: Isa) -> Code {
    pick!(isa, VEX_Vsqrtps_ymm_ymmm256, EVEX_Vsqrtps_zmm_k1z_zmmm512b32_er)
}

/// With the immediate of `roundps`: 8 nearest, 9 floor, 10 ceil, 11 truncate.
pub(super) fn round(isa: Isa) -> Code {
    pick!(isa, VEX_Vroundps_ymm_ymmm256_imm8, EVEX_Vrndscaleps_zmm_k1z_zmmm512b32_imm8_sae)
}

pub(super) fn to_int(isa: Isa) -> Code {
    pick!(isa, VEX_Vcvttps2dq_ymm_ymmm256, EVEX_Vcvttps2dq_zmm_k1z_zmmm512b32_sae)
}

pub(super) fn to_float(isa: Isa) -> Code {
    pick!(isa, VEX_Vcvtdq2ps_ymm_ymmm256, EVEX_Vcvtdq2ps_zmm_k1z_zmmm512b32_er)
}

pub(super) fn store_float(isa: Isa) -> Code {
    pick!(isa, VEX_Vmovss_m32_xmm, EVEX_Vmovss_m32_k1_xmm)
}

pub(super) fn extract_float(isa: Isa) -> Code {
    pick!(isa, VEX_Vextractps_rm32_xmm_imm8, EVEX_Vextractps_rm32_xmm_imm8)
}

pub(super) fn extract_four(isa: Isa) -> Code {
    pick!(isa, VEX_Vextractf128_xmmm128_ymm_imm8, EVEX_Vextractf32x4_xmmm128_k1z_zmm_imm8)
}

pub(super) fn zip_low(isa: Isa) -> Code {
    pick!(isa, VEX_Vunpcklps_ymm_ymm_ymmm256, EVEX_Vunpcklps_zmm_k1z_zmm_zmmm512b32)
}

pub(super) fn zip_high(isa: Isa) -> Code {
    pick!(isa, VEX_Vunpckhps_ymm_ymm_ymmm256, EVEX_Vunpckhps_zmm_k1z_zmm_zmmm512b32)
}

pub(super) fn pick_pairs(isa: Isa) -> Code {
    pick!(isa, VEX_Vshufps_ymm_ymm_ymmm256_imm8, EVEX_Vshufps_zmm_k1z_zmm_zmmm512b32_imm8)
}

pub(super) fn within_fours(isa: Isa) -> Code {
    pick!(isa, VEX_Vpermilps_ymm_ymmm256_imm8, EVEX_Vpermilps_zmm_k1z_zmmm512b32_imm8)
}

pub(super) fn pick_fours(isa: Isa) -> Code {
    pick!(isa, VEX_Vperm2f128_ymm_ymm_ymmm256_imm8, EVEX_Vshuff32x4_zmm_k1z_zmm_zmmm512b32_imm8)
}

pub(super) fn permute(isa: Isa) -> Code {
    pick!(isa, VEX_Vpermps_ymm_ymm_ymmm256, EVEX_Vpermps_zmm_k1z_zmm_zmmm512b32)
}

/// Elements narrower than a lane to lanes; bf16 to the lower halves of these.
pub(super) fn widen(elem: Elem, isa: Isa) -> Code {
    match elem {
        Elem::F16 => pick!(isa, VEX_Vcvtph2ps_ymm_xmmm128, EVEX_Vcvtph2ps_zmm_k1z_ymmm256_sae),
        Elem::I8 => pick!(isa, VEX_Vpmovsxbd_ymm_xmmm64, EVEX_Vpmovsxbd_zmm_k1z_xmmm128),
        Elem::U8 => pick!(isa, VEX_Vpmovzxbd_ymm_xmmm64, EVEX_Vpmovzxbd_zmm_k1z_xmmm128),
        Elem::I16 => pick!(isa, VEX_Vpmovsxwd_ymm_xmmm128, EVEX_Vpmovsxwd_zmm_k1z_ymmm256),
        Elem::Bf16 => pick!(isa, VEX_Vpmovzxwd_ymm_xmmm128, EVEX_Vpmovzxwd_zmm_k1z_ymmm256),
        Elem::F32 | Elem::I32 => load(isa),
    }
}

/// One narrow element to as many as [`widen`] reads.
pub(super) fn splat_narrow(elem: Elem, isa: Isa) -> Code {
    if elem.bytes() == 1 {
        pick!(isa, VEX_Vpbroadcastb_xmm_xmmm8, EVEX_Vpbroadcastb_xmm_k1z_xmmm8)
    } else {
        pick!(isa, VEX_Vpbroadcastw_xmm_xmmm16, EVEX_Vpbroadcastw_ymm_k1z_xmmm16)
    }
}

/// Lanes to narrow elements. AVX2 has it for f16 alone; u8 is that of numbers that are not negative.
pub(super) fn narrow(elem: Elem, isa: Isa) -> Code {
    match elem {
        Elem::F16 => pick!(isa, VEX_Vcvtps2ph_xmmm128_ymm_imm8, EVEX_Vcvtps2ph_ymmm256_k1z_zmm_imm8_sae),
        Elem::I8 => Code::EVEX_Vpmovsdb_xmmm128_k1z_zmm,
        Elem::U8 => Code::EVEX_Vpmovusdb_xmmm128_k1z_zmm,
        Elem::I16 => Code::EVEX_Vpmovsdw_ymmm256_k1z_zmm,
        Elem::Bf16 => Code::EVEX_Vpmovdw_ymmm256_k1z_zmm,
        Elem::F32 | Elem::I32 => store(isa),
    }
}
