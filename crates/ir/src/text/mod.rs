//! The text form of a graph: a listing with one node a line, made to be read, compared and edited.
//!
//! ```text
//! graph decoder
//! opset 21
//!
//! input %x : f32[1, 2, H]
//! const @w : f32[2, 3, 2] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]
//!
//! %up : f32[1, 3, 2*H] = ConvTranspose(%x, @w) {strides=[2]}
//! %y : f32[1, 3, 2*H] = Relu(%up) "activation"
//!
//! output %y
//! ```
//!
//! `parse(&print(&graph), &Weights::of(&graph))` is the graph again, for every graph that [`crate::verify`] passes. The
//! grammar is in `docs/text-form.md`.

mod cursor;
mod elements;
mod lexer;
mod parse;
mod print;
mod weights;

pub use parse::parse;
pub use print::print;
pub use weights::{Weights, seeded};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Opaque, Unary};
    use crate::{AttributeValue, Attributes, DType, Dim, Graph, Tensor, ValueType, bf16, f16};
    use std::sync::Arc;

    /// A graph with everything that the text form has to spell.
    fn everything() -> Graph {
        let mut graph = Graph::new("odd name");
        graph.opsets = [(String::new(), 21), ("com.example".into(), 1), ("odd domain".into(), -3)].into();
        graph.metadata =
            [("producer".into(), "some\n\"body\"".into()), ("two words".into(), String::new())].into();
        let x = graph
            .add_input(
                "x",
                ValueType::new(
                    DType::F32,
                    [Dim::symbol("N"), "2*\"a b\" - 1".parse().unwrap(), Dim::unknown()],
                ),
            )
            .unwrap();
        let y = graph.add_input("/layer.0/onnx::Conv-1", ValueType::unranked(DType::I8)).unwrap();
        let z = graph.add_input("odd \u{e9}\u{301}\t name:", ValueType::default()).unwrap();
        let nan = f32::from_bits(0xffc0_1234);
        let constants = [
            Tensor::from_vec([2, 3], vec![1.0f32, -0.0, f32::NAN, nan, f32::NEG_INFINITY, 1e-45]).unwrap(),
            Tensor::from_vec([2], vec![f64::MIN_POSITIVE, -1.0 / 3.0]).unwrap(),
            Tensor::from_vec([3], vec![f16::MAX, f16::from_bits(1), f16::from_bits(0xfe01)]).unwrap(),
            Tensor::from_vec([2], vec![bf16::MAX, bf16::from_bits(0x7fc0)]).unwrap(),
            Tensor::from_vec([2], vec![u64::MAX, 0]).unwrap(),
            Tensor::from_vec([0, 4], Vec::<i8>::new()).unwrap(),
            Tensor::scalar(i64::MIN),
            Tensor::from_bools([1, 2], [true, false]).unwrap(),
            Tensor::from_shared(DType::I4, vec![3], Arc::new(vec![0x21u8, 0x03]), 0).unwrap(),
            Tensor::from_shared(DType::C64, vec![9], Arc::new(vec![7u8; 72]), 0).unwrap(),
            Tensor::from_shared(DType::String, vec![2], Arc::new(b"\x01\0\0\0a".to_vec()), 0).unwrap(),
            seeded(DType::F32, &[65], 3).unwrap(),
        ];
        let ids: Vec<_> = constants
            .iter()
            .enumerate()
            .map(|(i, t)| graph.add_constant(&format!("c{i}"), t.clone()))
            .collect();
        let attributes = Attributes::new()
            .with("a", -7)
            .with("b", vec![1i64, i64::MIN])
            .with("c", -0.0f32)
            .with("d", vec![f32::NAN, nan, f32::INFINITY, 3.0])
            .with("e", "a \"b\"\n\u{1f600}")
            .with("f", vec!["a".to_owned(), String::new()])
            .with("g", constants[0].clone())
            .with("h", constants[11].clone())
            .with("i", AttributeValue::Opaque(vec![0, 255]))
            .with("j", AttributeValue::Opaque((0..100).collect()))
            .with("k", Vec::<i64>::new())
            .with("l", Vec::<f32>::new())
            .with("m", Vec::<String>::new())
            .with("to", DType::F16)
            .with("odd name", DType::F16);
        let opaque = |domain: &str, op_type: &str, attributes: Attributes, captures| {
            Opaque::new(domain, op_type, attributes, captures)
        };
        let outputs = vec![ValueType::default(), ValueType::unranked(DType::F32)];
        let inputs = [Some(x), None, Some(ids[0]), Some(y), Some(z), None];
        let (_, made) =
            graph.add_node("odd \u{7f} node", opaque("", "If", attributes, 0), &inputs, outputs).unwrap();
        let both = [Some(made[0]), Some(ids[11])];
        let op = opaque("com.example", "Loop", Attributes::new(), 2);
        let defined = graph.add_undefined("%", ValueType::new(DType::F32, [3usize, 0])).unwrap();
        graph.add_node_defining("%", op, &both, &[None, Some(defined)]).unwrap();
        let op = opaque("odd domain", "a::b", Attributes::new(), 1);
        graph.add_node_defining("no outputs", op, &both, &[]).unwrap();
        graph
            .add_node("relu", Unary::LeakyRelu { alpha: 0.1 }, &[Some(x)], vec![ValueType::default()])
            .unwrap();
        for id in [defined, x, ids[1], defined] {
            graph.add_output(id);
        }
        graph
    }

    #[test]
    fn everything_prints_and_parses() {
        let graph = everything();
        let text = print(&graph);
        let parsed = parse(&text, &Weights::of(&graph)).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert!(parsed == graph, "{text}\n{parsed:?}");
        assert_eq!(print(&parsed), text);
    }

    #[test]
    fn a_listing_reads_well() {
        let text = "\
graph decoder
opset 21

input %x : f32[1, 2, H]
const @w : f32[2, 3, 2] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]

%up : f32[1, 3, 2*H] = ConvTranspose(%x, @w) {strides=[2]}
%y : f32[1, 3, 2*H] = Relu(%up) \"activation\"

output %y
";
        let mut graph: Graph = text.parse().unwrap();
        assert_eq!(print(&graph), text);
        crate::infer::infer(&mut graph).unwrap();
        assert_eq!(print(&graph), text, "the types are those inferred");
        crate::verify::verify(&graph).unwrap();
    }

    #[test]
    fn generators_stand_for_weights() {
        let text = "const @a : f32[3] = iota\nconst @b : f16[2] = fill(-0.5)\nconst @c : i8[70] = seeded(7)\n\
                    const @d : bool[1, 2] = fill(true)";
        let graph: Graph = text.parse().unwrap();
        let constant =
            |name: &str| graph.constant(graph.find_value(name).unwrap()).unwrap().to_f64s().unwrap();
        assert_eq!(constant("a"), [0.0, 1.0, 2.0]);
        assert_eq!(constant("b"), [-0.5, -0.5]);
        assert_eq!(constant("d"), [1.0, 1.0]);
        let mut integers = constant("c");
        assert!(integers.iter().all(|x| (-8.0..8.0).contains(x)));
        integers.sort_by(f64::total_cmp);
        integers.dedup();
        assert!(integers.len() > 10, "{integers:?}");
    }

    #[test]
    fn errors_name_line_column_and_what_was_expected() {
        let cases = [
            ("graph g\n\n%y = Relu(%x)", 3, 11, "`%x` is not defined above this line"),
            ("input %x : f32[1,\n  2\n 3]", 3, 2, "expected `,` or `]`, found `3`"),
            ("const @w : f32[2] = [1.0]", 1, 21, "1 elements do not fill a f32 tensor of shape [2]"),
            ("const @w : f32[N] = [1.0]", 1, 12, "f32[N] is no type of a tensor"),
            ("const @w : i8[1] = [128]", 1, 21, "expected an integer that fits i8, found `128`"),
            ("const @w : f32[1] = [1e39]", 1, 22, "expected a number that fits f32, found `1e39`"),
            ("const @w : f32[1] = [nan(0x1)]", 1, 26, "expected the bits of a NaN"),
            ("const @w : f32[70] #0123456789abcdef", 1, 20, "no f32[70] tensor of hash #0123456789abcdef"),
            ("const @w : f32[99999999999] = iota", 1, 31, "a generator makes at most"),
            ("const @w : u4[3] = hex\"21\"", 1, 18, "takes 2 bytes"),
            ("input %x : f32[1]\ninput %x : f32[1]", 2, 7, "two values are named `x`"),
            ("input %x : f32[1]\n%y = Rela(%x)", 2, 6, "`Rela` is no operator known here"),
            ("input %x : f32[1]\n%y = Relu(%x) {alpha=1.0}", 2, 6, "attribute `alpha`: is not known here"),
            ("input %x : f32[1]\n%y = Elu(%x) {alpha=1.0, alpha=2.0}", 2, 26, "given twice"),
            (
                "input %x : f32[1]\n%y = ::F(%x) {a=[1, 2.0]}",
                2,
                21,
                "expected a list of integers of one kind",
            ),
            ("input %x : f32[1]\n%y = Relu(%x)\n%z = Relu(%x) \"y\"", 3, 15, "no name for a node"),
            ("input %x : f32[1]\n%y = Relu(@x)", 2, 11, "`x` is no constant: write `%`"),
            ("%y, %y = ::F()", 1, 5, "two values are named `y`"),
            ("meta a = \"\\q\"", 1, 11, "unknown escape"),
            ("meta a = \"b", 1, 10, "the string is not closed"),
            ("graph g h", 1, 9, "expected the end of the line, found `h`"),
            ("opset 21\nopset 22", 2, 7, "given twice"),
            ("\u{e9}\u{e9} !", 1, 1, "has no '\u{e9}' here"),
            ("::F(%\"x", 1, 6, "the string is not closed"),
            ("% = ::F()", 1, 1, "expected a name behind the sign"),
            ("output _", 1, 9, "expected the value that is the output"),
        ];
        for (text, line, column, problem) in cases {
            let error = text.parse::<Graph>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {line}, column {column}: ")), "{text}: {error}");
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn damaged_texts_give_errors_and_no_panics() {
        let graph = everything();
        let (text, weights) = (print(&graph), Weights::of(&graph));
        let chars: Vec<char> = text.chars().collect();
        let marks: Vec<char> = "()[]{}%@#,;:=|\"\\-+*/._?0x9fn\n \u{e9}".chars().collect();
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let (mut parsed, mut refused) = (0, 0);
        for _ in 0..4000 {
            let mut damaged = chars.clone();
            for _ in 0..=random(3) {
                let at = random(damaged.len());
                match random(4) {
                    0 => damaged[at] = marks[random(marks.len())],
                    1 => damaged.insert(at, marks[random(marks.len())]),
                    2 => drop(damaged.drain(at..(at + random(20)).min(damaged.len()))),
                    _ => damaged.truncate(at.max(1)),
                }
                if damaged.is_empty() {
                    damaged.push(' ');
                }
            }
            let damaged: String = damaged.into_iter().collect();
            match parse(&damaged, &weights) {
                Err(_) => refused += 1,
                Ok(graph) => {
                    parsed += 1;
                    let text = print(&graph);
                    let again =
                        parse(&text, &Weights::of(&graph)).unwrap_or_else(|error| panic!("{error}\n{text}"));
                    assert!(again == graph, "{text}");
                }
            }
        }
        assert!(parsed > 100 && refused > 100, "{parsed} parsed, {refused} refused");
    }
}
