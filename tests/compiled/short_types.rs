//! Networks of f16, bf16 and quantised integers: nothing of them is interpreted, and integers are exact.

use crate::support::{Random, targets};
use std::fmt::Write as _;
use tconvc::{Compiler, DType, Model, Tensor, Tolerance, compare};
use tconvc_ir::Graph;

fn model(text: &str) -> Model {
    let mut graph: Graph = text.parse().unwrap();
    tconvc_ir::infer::infer(&mut graph).unwrap();
    Model::from_graph(graph)
}

/// Compiles for all targets and 1 to 3 threads: nothing is interpreted, bits do not depend on threads, and outputs are those of the
/// definition, to the last bit where `exact`.
fn check(text: &str, inputs: &[(&str, Tensor)], exact: bool) {
    let model = model(text);
    let given = || inputs.iter().map(|(name, tensor)| (*name, tensor.view()));
    let expected = model.interpret(given()).unwrap();
    for target in targets() {
        let mut first = None;
        for threads in [1, 2, 3] {
            let compiled = Compiler::new().target(target.clone()).threads(threads).compile(&model).unwrap();
            let found = compiled.run(given()).unwrap();
            assert!(compiled.report().interpreted.is_empty(), "{text}{target}: {}", compiled.report());
            for (name, expected) in expected.iter() {
                let found = found.get(name).unwrap();
                if exact {
                    assert_eq!(found, expected, "{text}{target}, {threads} threads");
                }
                compare(found, expected, Tolerance::NETWORK)
                    .unwrap_or_else(|problem| panic!("{text}{target}: `{name}`: {problem}"));
            }
            assert_eq!(
                &found,
                first.get_or_insert_with(|| found.clone()),
                "{text}{target}: {threads} threads"
            );
        }
    }
}

fn bytes(random: &mut Random, dtype: DType, shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    let data = (0..count).map(|_| random.below(256) as u8).collect::<Vec<u8>>();
    Tensor::from_shared(dtype, shape.to_vec(), std::sync::Arc::new(data), 0).unwrap()
}

fn rounded(dtype: DType, shape: &[usize], seed: u64) -> Tensor {
    Tensor::seeded(dtype, shape.to_vec(), seed).unwrap()
}

/// Sums of small integers are exact in f16, too.
#[test]
fn convolutions_of_short_floats() {
    for dtype in [DType::F16, DType::BF16] {
        for (op, weights) in [
            ("Conv", "3, 4, 3, 3"),
            ("Conv", "3, 4, 1, 1"),
            ("ConvTranspose", "4, 3, 4, 4"),
            ("ConvTranspose", "4, 3, 2, 2"),
            ("ConvTranspose", "4, 3, 5, 5"),
        ] {
            let strides = if op == "Conv" { "" } else { " {strides=[2, 2]}" };
            let text = format!(
                "input %x : {dtype}[1, 4, 7, 9]\nconst @w : {dtype}[{weights}] = seeded(3)\n\
                 %c = {op}(%x, @w){strides}\n%r = Relu(%c)\n%y = Cast(%r) {{to=f32}}\noutput %y\noutput %r\n"
            );
            let x = rounded(dtype, &[1, 4, 7, 9], 5);
            let model = model(&text);
            let given = || [("x", x.view())];
            let expected = model.interpret(given()).unwrap();
            for target in targets() {
                let compiled = Compiler::new().target(target.clone()).compile(&model).unwrap();
                assert!(compiled.report().interpreted.is_empty(), "{text}{target}");
                let found = compiled.run(given()).unwrap();
                for (name, expected) in expected.iter() {
                    compare(found.get(name).unwrap(), expected, model.tolerance(name, Tolerance::NETWORK))
                        .unwrap_or_else(|problem| panic!("{text}{target}: {problem}"));
                }
            }
        }
    }
}

/// What is larger than any f16 on the way stays; where it leaves as f16, it is infinite.
#[test]
fn what_leaves_overflows() {
    let text = "input %x : f16[2]\nconst @k : f16[] = 100.0\n%a = Mul(%x, @k)\n%b = Div(%a, @k)\n\
                output %a\noutput %b\n";
    let model = model(text);
    let x = Tensor::from_vec([2], vec![tconvc_ir::f16::from_f32(1000.0), tconvc_ir::f16::ONE]).unwrap();
    let outputs = Compiler::new().compile(&model).unwrap().run([("x", x.view())]).unwrap();
    assert_eq!(outputs[0].to_f64s().unwrap(), [f64::INFINITY, 100.0]);
    assert_eq!(outputs[1].to_f64s().unwrap(), [1000.0, 1.0]);
}

/// Numbers at and around every middle between two steps.
#[test]
fn quantised_and_back() {
    let mut values: Vec<f32> = vec![f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 0.0, -0.0, 1e-40];
    for step in -300..300 {
        let middle = (step as f32 + 0.5) * 0.1;
        values.extend([middle, middle.next_up(), middle.next_down(), step as f32 * 0.1]);
    }
    let x = Tensor::from_vec([1, 1, values.len()], values).unwrap();
    for (dtype, zero) in [("u8", 0), ("u8", 7), ("i8", -3), ("i16", 5), ("u16", 300)] {
        for back in ["0.1", "0.25"] {
            let text = format!(
                "input %x : f32[1, 1, {}]\nconst @s : f32[] = 0.1\nconst @t : f32[] = {back}\n\
                 const @z : {dtype}[] = {zero}\n%q = QuantizeLinear(%x, @s, @z)\n\
                 %y = DequantizeLinear(%q, @t, @z)\noutput %y\noutput %q\n",
                x.len()
            );
            check(&text, &[("x", x.clone())], true);
        }
    }
}

#[test]
fn quantised_along_an_axis() {
    let text = "input %x : f32[2, 3, 5, 4]\nconst @s : f32[3] = [0.1, 0.5, 0.03]\nconst @z : i8[3] = [1, 1, 1]\n\
                const @o : i8[3] = [3, -1, 100]\n%q = QuantizeLinear(%x, @s, @z)\n\
                %y = DequantizeLinear(%q, @s, @o)\noutput %y\noutput %q\n";
    check(text, &[("x", rounded(DType::F32, &[2, 3, 5, 4], 3))], true);
}

#[test]
fn quantised_to_the_range_of_the_data() {
    let text = "input %x : f32[N]\n%y, %s, %z = DynamicQuantizeLinear(%x)\n%d = DequantizeLinear(%y, %s, %z)\n\
                output %y\noutput %s\noutput %z\noutput %d\n";
    for values in [
        vec![0.0],
        vec![3.0, 1.0],
        vec![-5.0],
        vec![0.5, -0.25, 0.125, 1e-3],
        (0..5000).map(|i| ((i * 7919) % 5003) as f32 / 577.0 - 3.0).collect(),
    ] {
        let x = Tensor::from_vec([values.len()], values).unwrap();
        check(&text.replace('N', &x.len().to_string()), &[("x", x)], true);
    }
}

/// All products of two bytes.
#[test]
fn every_product_of_two_bytes() {
    let all = |dtype| {
        let data: Vec<u8> = (0..=255).collect();
        Tensor::from_shared(dtype, vec![256], std::sync::Arc::new(data), 0).unwrap()
    };
    for (a, b) in [("u8", "i8"), ("i8", "i8"), ("u8", "u8"), ("i8", "u8")] {
        let text = format!(
            "input %a : {a}[256, 1]\ninput %b : {b}[1, 256]\nconst @p : {a}[] = 113\nconst @q : {b}[] = 7\n\
             %y = MatMulInteger(%a, %b, @p, @q)\n%n = MatMulInteger(%a, %b)\n%f = Cast(%n) {{to=f32}}\n\
             output %y\noutput %f\n"
        );
        let of = |name: &str| all(DType::from_name(name).unwrap());
        let (a, b) = (of(a).reshaped([256, 1]).unwrap(), of(b).reshaped([1, 256]).unwrap());
        check(&text, &[("a", a), ("b", b)], true);
    }
}

/// Sums beyond 2^24, which f32 does not hold, are taken in parts.
#[test]
fn long_sums_are_exact() {
    let mut random = Random::new(7);
    for depth in [258, 259, 260, 700, 1500] {
        let text = format!(
            "input %a : u8[3, {depth}]\ninput %b : i8[{depth}, 5]\ninput %z : u8[]\n\
             %y = MatMulInteger(%a, %b, %z)\n%f = Cast(%y) {{to=f32}}\noutput %f\n"
        );
        let b = bytes(&mut random, DType::I8, &[depth, 5]);
        let least = Tensor::from_vec([depth, 5], vec![-128i8; depth * 5]).unwrap();
        let most = Tensor::from_vec([3, depth], vec![255u8; 3 * depth]).unwrap();
        let a = bytes(&mut random, DType::U8, &[3, depth]);
        for (a, b, zero) in [(&a, &b, 0u8), (&a, &b, 131), (&most, &least, 0), (&most, &b, 0)] {
            let inputs = [("a", a.clone()), ("b", b.clone()), ("z", Tensor::scalar(zero))];
            check(&text, &inputs, true);
        }
    }
}

#[test]
fn convolutions_of_integers() {
    let mut random = Random::new(3);
    for (channels, kernel, group) in [(3, 3, 1), (40, 3, 1), (8, 1, 8), (64, 5, 1), (6, 3, 2)] {
        let per_group = channels / group;
        let outputs = 4 * group;
        let x = bytes(&mut random, DType::U8, &[1, channels, 6, 7]);
        let w = bytes(&mut random, DType::I8, &[outputs, per_group, kernel, kernel]);
        let spell = |tensor: &Tensor| {
            let numbers = tensor.to_f64s().unwrap();
            format!("[{}]", numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(", "))
        };
        let list = |of: &dyn Fn(usize) -> String| {
            format!("[{}]", (0..outputs).map(of).collect::<Vec<_>>().join(", "))
        };
        let attributes = format!("{{group={group}, pads=[1, 0, 1, 2]}}");
        let text = format!(
            "input %x : u8[1, {channels}, 6, 7]\nconst @w : i8[{outputs}, {per_group}, {kernel}, {kernel}] = {}\n\
             const @z : u8[] = 130\nconst @v : i8[{outputs}] = {}\nconst @sx : f32[] = 0.02\n\
             const @sw : f32[{outputs}] = {}\nconst @sy : f32[] = 0.7\nconst @zy : i8[] = -5\n\
             const @b : i32[{outputs}] = {}\n\
             %i = ConvInteger(%x, @w, @z, @v) {attributes}\n\
             %q = QLinearConv(%x, @sx, @z, @w, @sw, @v, @sy, @zy, @b) {attributes}\n\
             %y = Cast(%i) {{to=f32}}\noutput %y\noutput %q\n",
            spell(&w),
            list(&|i| (i as i64 - 2).to_string()),
            list(&|i| format!("{:?}", 0.001 * (i + 1) as f64)),
            list(&|i| (i as i64 * 1000 - 1500).to_string()),
        );
        check(&text, &[("x", x)], true);
    }
}

/// Neither the zero point nor the scale between two quantised layers is lost.
#[test]
fn quantised_layers_in_a_row() {
    let text = "input %x : u8[1, 3, 8, 8]\nconst @w : i8[4, 3, 3, 3] = seeded(1)\nconst @v : i8[2, 4, 1, 1] = seeded(2)\n\
                const @sx : f32[] = 0.02\nconst @z : u8[] = 120\nconst @sw : f32[] = 0.01\nconst @zw : i8[] = 0\n\
                const @sy : f32[] = 0.05\nconst @zy : u8[] = 7\n\
                %a = QLinearConv(%x, @sx, @z, @w, @sw, @zw, @sy, @zy)\n\
                %y = QLinearConv(%a, @sy, @zy, @v, @sw, @zw, @sy, @zy)\noutput %y\n";
    check(text, &[("x", bytes(&mut Random::new(9), DType::U8, &[1, 3, 8, 8]))], true);
}

/// Einsum in the words of products.
#[test]
fn einsums() {
    let cases: [(&str, &[&[usize]]); 8] = [
        ("bct,bcs->bts", &[&[2, 3, 5], &[2, 3, 7]]),
        ("bts,bcs->bct", &[&[2, 5, 7], &[2, 3, 7]]),
        ("...ij,...jk->...ik", &[&[2, 1, 3, 4], &[5, 4, 6]]),
        ("abc,cd,ad->bd", &[&[2, 3, 4], &[4, 5], &[2, 5]]),
        ("ii,ij->j", &[&[4, 4], &[4, 3]]),
        ("nhwc,kc->nkhw", &[&[1, 3, 4, 5], &[6, 5]]),
        ("i,j->ji", &[&[3], &[4]]),
        ("bhid,bhjd->bhij", &[&[1, 2, 6, 4], &[1, 2, 5, 4]]),
    ];
    for (equation, shapes) in cases {
        let mut text = String::new();
        let mut inputs = vec![];
        let names = ["a", "b", "c"];
        for ((name, shape), seed) in names.into_iter().zip(shapes.iter()).zip(1..) {
            let _ = writeln!(text, "input %{name} : f32{shape:?}");
            inputs.push((name, rounded(DType::F32, shape, seed)));
        }
        let operands = names[..shapes.len()].iter().map(|name| format!("%{name}")).collect::<Vec<_>>();
        let _ = write!(text, "%y = Einsum({}) {{equation=\"{equation}\"}}\noutput %y\n", operands.join(", "));
        check(&text, &inputs, false);
    }
}
