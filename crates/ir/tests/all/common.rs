//! What the tests of the convolution family share: cases, their tensors, and the matrix of a convolution.

use tconvc_ir::geometry::{Channels, DeconvAxis, DeconvGeometry};
use tconvc_ir::{Element, Operator, Tensor};

/// Input extent, kernel, stride, dilation, pad at the beginning, pad at the end.
pub type AxisNumbers = (usize, usize, usize, usize, i64, i64);

/// A transposed convolution in plain numbers.
#[derive(Debug, Clone)]
pub struct Case {
    pub batch: usize,
    pub groups: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub axes: Vec<AxisNumbers>,
}

/// Output extent of an axis.
pub fn output(&(input, kernel, stride, dilation, begin, end): &AxisNumbers) -> i64 {
    ((input - 1) * stride + (kernel - 1) * dilation + 1) as i64 - begin - end
}

/// The only output of an operator.
pub fn eval(op: &impl Operator, inputs: &[&Tensor]) -> Tensor {
    let inputs: Vec<_> = inputs.iter().map(|&input| Some(input)).collect();
    op.eval(&inputs, 1).unwrap().remove(0)
}

/// Small integers, different for each seed.
pub fn integers(shape: Vec<usize>, seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as i64 % 19 - 9
    };
    let count = shape.iter().product();
    Tensor::from_vec(shape, (0..count).map(|_| next()).collect()).unwrap()
}

/// Every index into a row-major array, outermost axis first.
fn indices(extents: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for &extent in extents {
        all = all.iter().flat_map(|head| (0..extent).map(|i| [head.as_slice(), &[i]].concat())).collect();
    }
    all
}

fn flat(index: &[usize], extents: &[usize]) -> usize {
    index.iter().zip(extents).fold(0, |flat, (i, extent)| flat * extent + i)
}

impl Case {
    pub fn geometry(&self) -> DeconvGeometry {
        let channels = Channels::new(self.batch, self.inputs, self.outputs, self.groups).unwrap();
        let axis = |&(i, k, s, d, b, e): &AxisNumbers| DeconvAxis::new(i, k, s, d, [b, e]).unwrap();
        DeconvGeometry::new(channels, self.axes.iter().map(axis).collect()).unwrap()
    }

    fn extents(&self, of: fn(&AxisNumbers) -> usize) -> Vec<usize> {
        self.axes.iter().map(of).collect()
    }

    pub fn data(&self) -> Tensor {
        integers([&[self.batch, self.inputs], self.extents(|axis| axis.0).as_slice()].concat(), 1)
    }

    pub fn weights(&self) -> Tensor {
        let head = [self.inputs, self.outputs / self.groups];
        integers([&head, self.extents(|axis| axis.1).as_slice()].concat(), 2)
    }

    pub fn bias(&self) -> Tensor {
        integers(vec![self.outputs], 3)
    }

    /// The weights of the convolution in the zero-insertion form.
    pub fn flipped<T: Element>(&self, w: &Tensor) -> Tensor {
        let w = w.elements::<T>().unwrap();
        let kernel = self.extents(|axis| axis.1);
        let taps: usize = kernel.iter().product();
        let (inputs, outputs) = (self.inputs / self.groups, self.outputs / self.groups);
        let mut flipped: Vec<T> = vec![];
        for c in 0..self.outputs {
            for ci in 0..inputs {
                let row = (c / outputs * inputs + ci) * outputs + c % outputs;
                flipped.extend(w[row * taps..][..taps].iter().rev());
            }
        }
        Tensor::from_vec([&[self.outputs, inputs], kernel.as_slice()].concat(), flipped).unwrap()
    }

    /// The matrix of the convolution from `[Cout, out..]` to `[Cin, in..]` with these weights: a row for each of its
    /// outputs (our inputs), a column for each of its inputs (our outputs).
    pub fn convolution_matrix(&self, w: &Tensor) -> Vec<Vec<i64>> {
        let w = w.elements::<i64>().unwrap();
        let (input, kernel) = (self.extents(|axis| axis.0), self.extents(|axis| axis.1));
        let out = self.extents(|axis| output(axis) as usize);
        let (rows, columns): (usize, usize) = (input.iter().product(), out.iter().product());
        let (taps, outputs) = (kernel.iter().product::<usize>(), self.outputs / self.groups);
        let mut matrix = vec![vec![0; self.outputs * columns]; self.inputs * rows];
        for i in indices(&input) {
            for k in indices(&kernel) {
                let read: Option<Vec<usize>> = (0..self.axes.len())
                    .map(|axis| {
                        let (_, _, stride, dilation, begin, _) = self.axes[axis];
                        let o = (i[axis] * stride + k[axis] * dilation) as i64 - begin;
                        usize::try_from(o).ok().filter(|&o| o < out[axis])
                    })
                    .collect();
                let Some(read) = read else { continue };
                for ci in 0..self.inputs {
                    for member in 0..outputs {
                        let c = ci / (self.inputs / self.groups) * outputs + member;
                        let weight = w[(ci * outputs + member) * taps + flat(&k, &kernel)];
                        matrix[ci * rows + flat(&i, &input)][c * columns + flat(&read, &out)] += weight;
                    }
                }
            }
        }
        matrix
    }

    /// Bias plus the transposed matrix of the convolution times the data.
    pub fn transposed_matrix_product(&self, x: &Tensor, w: &Tensor, b: &Tensor) -> Tensor {
        let (matrix, b) = (self.convolution_matrix(w), b.elements::<i64>().unwrap());
        let out = self.extents(|axis| output(axis) as usize);
        let size: usize = out.iter().product();
        let mut y = vec![];
        for image in x.elements::<i64>().unwrap().chunks_exact(matrix.len()) {
            let mut sums: Vec<i64> = b.iter().flat_map(|&bias| vec![bias; size]).collect();
            for (row, value) in matrix.iter().zip(image) {
                for (sum, weight) in sums.iter_mut().zip(row) {
                    *sum += weight * value;
                }
            }
            y.extend(sums);
        }
        Tensor::from_vec([&[self.batch, self.outputs], out.as_slice()].concat(), y).unwrap()
    }
}
