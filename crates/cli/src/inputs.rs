//! Inputs of a model: from files, by name, or seeded.

use crate::arrays::{self, Array};
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use tconvc::{Budget, DType, PortInfo, Tensor, TensorView};

/// Named tensors as the library takes them.
pub fn views(tensors: &[(String, Tensor)]) -> Vec<(&str, TensorView<'_>)> {
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.view())).collect()
}

/// Inputs from npz files and single npy files. Keys are the names of the inputs, or `input_0`, `input_1` and so on.
pub fn from_files(
    ports: &[PortInfo],
    npz: &[PathBuf],
    npy: &[(String, PathBuf)],
    budget: &Budget,
) -> Result<Vec<(String, Tensor)>> {
    let mut given: Vec<(String, Tensor)> = vec![];
    let mut keys: Vec<String> = npy.iter().map(|(name, _)| format!("`{name}`")).collect();
    for path in npz {
        let arrays = arrays::read_npz(path)?;
        keys.extend(arrays.iter().map(|array| format!("`{}`", array.name)));
        given.extend(pick(ports, "input", &arrays, budget)?);
    }
    for (name, path) in npy {
        let array = arrays::read_npy(name, path);
        let port = ports.iter().find(|port| port.name == *name);
        given.push((name.clone(), array.tensor(port, budget)?));
    }
    let known: HashSet<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    let named: HashSet<&str> = given.iter().map(|(name, _)| name.as_str()).collect();
    for (name, _) in &given {
        if !known.contains(name.as_str()) {
            return Err(Error::new(format!(
                "the model has no input `{name}`; its inputs are {}",
                list(ports)
            )));
        }
    }
    for port in ports.iter().filter(|port| !port.optional) {
        if !named.contains(port.name.as_str()) {
            let found = if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
            let from = npz.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
            let place = if from.is_empty() { String::new() } else { format!(" in {from}") };
            return Err(Error::new(format!(
                "input {port} is missing{place}: an array under the key `{}` is expected, found is {found}",
                port.name
            )));
        }
    }
    Ok(given)
}

/// Arrays under the names of these ports or, where none has such a name, under `KIND_0`, `KIND_1` and so on.
/// Others are not looked at.
pub fn pick(
    ports: &[PortInfo],
    kind: &str,
    arrays: &[Array],
    budget: &Budget,
) -> Result<Vec<(String, Tensor)>> {
    // A name stands as it is, or spelled as this program writes it.
    let mut by_key: HashMap<Cow<'_, str>, &PortInfo> = HashMap::new();
    for port in ports {
        by_key.entry(arrays::member(&port.name).into()).or_insert(port);
    }
    by_key.extend(ports.iter().map(|port| (port.name.as_str().into(), port)));
    let named: Vec<(&PortInfo, &Array)> =
        arrays.iter().filter_map(|array| Some((*by_key.get(array.name.as_str())?, array))).collect();
    let number = |name: &str| name.strip_prefix(kind)?.strip_prefix('_')?.parse::<usize>().ok();
    let numbered =
        || arrays.iter().filter_map(|array| Some((ports.get(number(&array.name)?)?, array))).collect();
    let picked = if named.is_empty() { numbered() } else { named };
    picked
        .into_iter()
        .map(|(port, array)| Ok((port.name.clone(), array.tensor(Some(port), budget)?)))
        .collect()
}

/// Seeded inputs, where they have to be given: floats in (-1, 1), small integers; the same on every run.
pub fn seeded(ports: &[PortInfo], budget: &Budget) -> Result<Vec<(String, Tensor)>> {
    let _budget = budget.enter();
    let one = |(index, port): (usize, &PortInfo)| {
        let open = || {
            Error::new(format!(
                "the extents of input {port} are open; give them with --shape {}=1x3x224x224, or arrays with --inputs",
                port.name
            ))
        };
        let dims = port.shape.as_ref().ok_or_else(open)?;
        let shape = dims.iter().map(|dim| dim.parse().map_err(|_| open())).collect::<Result<Vec<usize>>>()?;
        let dtype = port.dtype.unwrap_or(DType::F32);
        let tensor = Tensor::seeded(dtype, shape, index as u64 + 1).map_err(Error::new)?;
        Ok((port.name.clone(), tensor))
    };
    ports.iter().filter(|port| !port.optional).enumerate().map(one).collect()
}

/// The inputs of a command that are given in files; empty where there are none.
pub fn given(
    ports: &[PortInfo],
    npz: &[PathBuf],
    npy: &[(String, PathBuf)],
    budget: &Budget,
) -> Result<Vec<(String, Tensor)>> {
    if npz.is_empty() && npy.is_empty() {
        return Ok(vec![]);
    }
    let given = from_files(ports, npz, npy, budget)?;
    for (name, tensor) in &given {
        check_numbers(name, tensor)?;
    }
    Ok(given)
}

/// The inputs of a command: those given, else seeded ones.
pub fn or_seeded(
    given: Vec<(String, Tensor)>,
    ports: &[PortInfo],
    budget: &Budget,
) -> Result<Vec<(String, Tensor)>> {
    if given.is_empty() { seeded(ports, budget) } else { Ok(given) }
}

/// Refuses an array of nothing but NaN: it tells of a mistake where it was made, and no result would.
fn check_numbers(name: &str, tensor: &Tensor) -> Result<()> {
    if !tensor.dtype().is_float() || tensor.is_empty() {
        return Ok(());
    }
    if tensor.f64s().map_err(Error::new)?.any(|value| !value.is_nan()) {
        return Ok(());
    }
    Err(Error::new(format!(
        "input `{name}` holds nothing but NaN, all {} elements of it: an array with numbers is expected",
        tensor.len()
    )))
}

/// `` `x` f32[1, 3], `y` f32[2]; 12 more may be left out ``
fn list(ports: &[PortInfo]) -> String {
    let required = ports.iter().filter(|port| !port.optional);
    let named = required.map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let optional: Vec<String> = ports.iter().filter(|port| port.optional).map(ToString::to_string).collect();
    match optional.len() {
        0 => named,
        1..=4 => format!("{named}; {} may be left out", optional.join(", ")),
        more => format!("{named}; {more} more may be left out"),
    }
}

/// `MODEL.npz` beside `MODEL.onnx`, when it is there.
pub fn stored(model: &Path) -> Option<PathBuf> {
    let path = model.with_extension("npz");
    path.is_file().then_some(path)
}
