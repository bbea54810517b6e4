//! What each instruction does: the list of those that the emulator knows.

use iced_x86::{Instruction, Mnemonic};

use super::Emulator;

type Step = fn(&mut Emulator, &Instruction);

/// What an instruction does; `None` of one that is not known.
pub(super) fn step_of(mnemonic: Mnemonic) -> Option<Step> {
    let step: Step = match mnemonic {
        Mnemonic::Nop | Mnemonic::Prefetcht0 => |_, _| {},
        Mnemonic::Vzeroupper => |e, _| {
            for v in &mut e.vectors[..16] {
                v[4..].fill(0);
            }
        },
        Mnemonic::Mov
        | Mnemonic::Lea
        | Mnemonic::Add
        | Mnemonic::Sub
        | Mnemonic::Imul
        | Mnemonic::Shl
        | Mnemonic::Dec
        | Mnemonic::Cmp
        | Mnemonic::Test
        | Mnemonic::Cmovb
        | Mnemonic::Bzhi
        | Mnemonic::Push
        | Mnemonic::Pop
        | Mnemonic::Jne
        | Mnemonic::Jmp
        | Mnemonic::Je
        | Mnemonic::Ret
        | Mnemonic::Vmovmskps
        | Mnemonic::Vpmovd2m
        | Mnemonic::Kmovw => |e, i| e.integer(i),

        Mnemonic::Vcvtph2ps
        | Mnemonic::Vcvtps2ph
        | Mnemonic::Vpmovsxbd
        | Mnemonic::Vpmovzxbd
        | Mnemonic::Vpmovsxwd
        | Mnemonic::Vpmovzxwd
        | Mnemonic::Vpmovsdb
        | Mnemonic::Vpmovusdb
        | Mnemonic::Vpmovsdw
        | Mnemonic::Vpmovdw
        | Mnemonic::Vpbroadcastb
        | Mnemonic::Vpbroadcastw
        | Mnemonic::Vmovd
        | Mnemonic::Vmovq
        | Mnemonic::Vpinsrb
        | Mnemonic::Vpinsrw
        | Mnemonic::Vpinsrd
        | Mnemonic::Vpextrb
        | Mnemonic::Vpextrw
        | Mnemonic::Vpextrd
        | Mnemonic::Vpackssdw
        | Mnemonic::Vpackusdw
        | Mnemonic::Vpacksswb
        | Mnemonic::Vpackuswb => |e, i| e.narrow(i),

        Mnemonic::Vpmaxsd => |e, i| e.lanewise(i, |a, b| (a as i32).max(b as i32) as u32),
        Mnemonic::Vaddps => |e, i| e.floats(i, |a, b| a + b),
        Mnemonic::Vsubps => |e, i| e.floats(i, |a, b| a - b),
        Mnemonic::Vmulps => |e, i| e.floats(i, |a, b| a * b),
        Mnemonic::Vdivps => |e, i| e.floats(i, |a, b| a / b),
        Mnemonic::Vmaxps => |e, i| e.floats(i, |a, b| if a > b { a } else { b }),
        Mnemonic::Vminps => |e, i| e.floats(i, |a, b| if a < b { a } else { b }),
        Mnemonic::Vandps => |e, i| e.lanewise(i, |a, b| a & b),
        Mnemonic::Vorps => |e, i| e.lanewise(i, |a, b| a | b),
        Mnemonic::Vxorps | Mnemonic::Vpxor | Mnemonic::Vpxord => |e, i| e.lanewise(i, |a, b| a ^ b),
        Mnemonic::Vpaddd => |e, i| e.lanewise(i, u32::wrapping_add),
        Mnemonic::Vpmulld => |e, i| e.lanewise(i, u32::wrapping_mul),
        Mnemonic::Vpminsd => |e, i| e.lanewise(i, |a, b| (a as i32).min(b as i32) as u32),
        Mnemonic::Vpsubd => |e, i| e.lanewise(i, u32::wrapping_sub),
        Mnemonic::Vfmadd231ps => |e, i| e.fma(i, |d, a, b| a.mul_add(b, d)),
        Mnemonic::Vfnmadd231ps => |e, i| e.fma(i, |d, a, b| (-a).mul_add(b, d)),
        Mnemonic::Vfmadd213ps => |e, i| e.fma(i, |d, a, b| a.mul_add(d, b)),
        Mnemonic::Vsqrtps => |e, i| e.map(i, |a| f32::from_bits(a).sqrt().to_bits()),
        Mnemonic::Vroundps | Mnemonic::Vrndscaleps => |e, i| {
            let round = match i.immediate8() {
                8 => f32::round_ties_even,
                9 => f32::floor,
                10 => f32::ceil,
                11 => f32::trunc,
                other => panic!("rounding {other}"),
            };
            e.map(i, |a| round(f32::from_bits(a)).to_bits());
        },
        Mnemonic::Vcvttps2dq => |e, i| {
            e.map(i, |a| {
                let x = f32::from_bits(a);
                if (-2_147_483_648.0..2_147_483_648.0).contains(&x) { x as i32 as u32 } else { 1 << 31 }
            });
        },
        Mnemonic::Vcvtdq2ps => |e, i| e.map(i, |a| (a as i32 as f32).to_bits()),
        Mnemonic::Vpslld => |e, i| e.map(i, |a| a << usize::from(i.immediate8())),
        Mnemonic::Vpsrld => |e, i| e.map(i, |a| a >> usize::from(i.immediate8())),
        Mnemonic::Vpsrad => |e, i| e.map(i, |a| (a as i32 >> usize::from(i.immediate8())) as u32),
        Mnemonic::Vcmpps => |e, i| e.compare(i),
        Mnemonic::Vblendvps => |e, i| {
            let lanes = i.op_register(0).size() / 4;
            let [a, b, mask] = [1, 2, 3].map(|operand| e.vector(i, operand, lanes));
            e.set(i, |lane| if mask[lane] >> 31 == 1 { b[lane] } else { a[lane] });
        },
        Mnemonic::Vblendmps => |e, i| {
            // The mask chooses here, it does not protect.
            let mask = e.mask(i);
            let (a, b) = (e.vector(i, 1, 16), e.vector(i, 2, 16));
            let number = i.op_register(0).number();
            e.vectors[number] =
                std::array::from_fn(|lane| if mask >> lane & 1 == 1 { b[lane] } else { a[lane] });
        },

        Mnemonic::Vmovups
        | Mnemonic::Vmovaps
        | Mnemonic::Vmaskmovps
        | Mnemonic::Vbroadcastss
        | Mnemonic::Vgatherdps
        | Mnemonic::Vmovss
        | Mnemonic::Vmovsd
        | Mnemonic::Vmovlps
        | Mnemonic::Vextractps
        | Mnemonic::Vextractf128
        | Mnemonic::Vextracti128
        | Mnemonic::Vextractf32x4
        | Mnemonic::Vextractf64x4
        | Mnemonic::Vinsertps
        | Mnemonic::Vinsertf128 => |e, i| e.mov(i),

        Mnemonic::Vblendps => |e, i| e.pick(i, [1, 2], |l| l + 16 * (usize::from(i.immediate8()) >> l & 1)),
        Mnemonic::Vunpcklps => |e, i| e.pick(i, [1, 2], |l| l / 4 * 4 + l % 4 / 2 + 16 * (l % 2)),
        Mnemonic::Vunpckhps => |e, i| e.pick(i, [1, 2], |l| l / 4 * 4 + 2 + l % 4 / 2 + 16 * (l % 2)),
        Mnemonic::Vshufps => |e, i| {
            e.pick(i, [1, 2], |l| {
                l / 4 * 4 + (usize::from(i.immediate8()) >> (2 * (l % 4)) & 3) + l % 4 / 2 * 16
            });
        },
        Mnemonic::Vpermilps => |e, i| {
            e.pick(i, [1, 1], |l| l / 4 * 4 + (usize::from(i.immediate8()) >> (2 * (l % 4)) & 3));
        },
        Mnemonic::Vperm2f128 => |e, i| {
            e.pick(i, [1, 2], |l| {
                let choice = usize::from(i.immediate8()) >> (l / 4 * 4);
                assert_eq!(choice & 8, 0, "zeroing");
                choice % 2 * 4 + l % 4 + 16 * (choice >> 1 & 1)
            });
        },
        Mnemonic::Vshuff32x4 => |e, i| {
            e.pick(i, [1, 2], |l| (usize::from(i.immediate8()) >> (l / 4 * 2) & 3) * 4 + l % 4 + l / 8 * 16);
        },
        Mnemonic::Vpermps => |e, i| {
            let lanes = i.op_register(0).size() / 4;
            let index = e.vector(i, 1, lanes);
            e.pick(i, [2, 2], |l| index[l] as usize % lanes);
        },
        Mnemonic::Vpermi2ps => |e, i| {
            let index = e.vector(i, 0, 16);
            e.pick(i, [1, 2], |l| index[l] as usize % 32);
        },
        Mnemonic::Vpermt2ps => |e, i| {
            let index = e.vector(i, 1, 16);
            e.pick(i, [0, 2], |l| index[l] as usize % 32);
        },
        _ => return None,
    };
    Some(step)
}
