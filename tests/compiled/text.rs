//! Text goes past the program: constants and inputs of it come out as they are, and what reads it is interpreted.

use crate::support::compiler;
use tconvc::{Model, Tensor, TensorViewMut};
use tconvc_ir::{DType, Graph};

fn texts(shape: &[usize], texts: &[&str]) -> Tensor {
    Tensor::from_strings(shape, texts.iter().map(|text| text.as_bytes())).unwrap()
}

/// Labels beside a layer; labels that come in and go out; labels that are compared, and what is computed from that.
fn model() -> Model {
    // "ca" and "dog", each with its length in front.
    let text = "input %x : f32[1, 2, 3, 3]\ninput %a : str[2]\nconst @labels : str[2] = hex\"02636103646f67\"\nconst @w : f32[2, 1, 2, 2] = seeded(1)\n\
                %y = ConvTranspose(%x, @w) {strides=[2, 2]}\n%same = Equal(%a, @labels)\n\
                %number = Cast(%same) {to=1}\n%z = Add(%number, %number)\n\
                output %y\noutput @labels\noutput %a\noutput %z";
    let graph: Graph = text.parse().unwrap_or_else(|error| panic!("{error}"));
    Model::from_graph(graph)
}

#[test]
fn text_comes_in_and_goes_out() {
    let compiled = compiler().compile(&model()).unwrap();
    let (x, a) = (Tensor::seeded(DType::F32, [1, 2, 3, 3], 1).unwrap(), texts(&[2], &["ca", "dog"]));
    let mut session = compiled.session();
    for _ in 0..2 {
        let outputs = session.run(&[x.view(), a.view()]).unwrap();
        assert_eq!(outputs.get("y").unwrap().shape(), [1, 1, 6, 6]);
        assert_eq!(outputs.get("labels").unwrap().strings().unwrap(), [b"ca".as_slice(), b"dog".as_slice()]);
        assert_eq!(outputs.get("a").unwrap(), &a);
        assert_eq!(outputs.get("z").unwrap().to_f64s().unwrap(), [2.0, 2.0]);
    }
    // There is no memory for text of unknown length.
    let mut buffers = [vec![0f32; 36], vec![0f32; 2]];
    let [y, z] = &mut buffers;
    let mut outputs = [
        TensorViewMut::new(&[1, 1, 6, 6], y).unwrap(),
        TensorViewMut::from_bytes(DType::String, &[2], &mut []).unwrap(),
        TensorViewMut::from_bytes(DType::String, &[2], &mut []).unwrap(),
        TensorViewMut::new(&[2], z).unwrap(),
    ];
    let error = session.run_into(&[x.view(), a.view()], &mut outputs).unwrap_err().to_string();
    assert!(error.contains("output `labels` is text"), "{error}");
}
