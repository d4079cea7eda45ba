//! Checkpoints of synthetic weights, for measuring how they load: larger than memory if need be.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use dinov3_model::spec;
use dinov3_model::synthetic::{SyntheticSpec, fill};
use dinov3_model::tensors::tensors;
use dinov3_testing::checkpoints::Type;
use dinov3_testing::pth::{self, Layout};
use serde_json::{Map, Value, json};

/// Name and shape.
type Tensor = (String, Vec<usize>);

/// `--model M --weights synthetic:SEED [--shards N | --pth] -o FOLDER`: f32 under timm's names.
pub fn run(arguments: &[&str]) -> Result<()> {
    let (mut model, mut weights, mut shards, mut as_pth, mut folder) = (None, "synthetic:1", 1, false, None);
    let mut rest = arguments.iter();
    while let Some(&flag) = rest.next() {
        let mut value = || rest.next().copied().with_context(|| format!("{flag} needs a value"));
        match flag {
            "--model" => model = Some(value()?),
            "--weights" => weights = value()?,
            "--shards" => shards = value()?.parse().context("--shards needs a number")?,
            "--pth" => as_pth = true,
            "-o" => folder = Some(PathBuf::from(value()?)),
            other => bail!("unknown argument {other}"),
        }
    }
    let model = spec::find(model.context("--model is missing")?)?;
    let folder = folder.context("-o is missing")?;
    let seed = SyntheticSpec::parse(weights).context("--weights must be synthetic:SEED")??;
    let tensors: Vec<Tensor> = tensors(&model).into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
    fs::create_dir_all(&folder)?;
    let values = |tensor: &Tensor, start: usize, out: &mut [f32]| {
        fill(&tensor.0, &tensor.1, seed.seed, seed.outliers, start, out);
    };
    if as_pth {
        let path = folder.join("pytorch_model.bin");
        pth::write(&path, &tensors, Type::F32, &Layout::default(), &|index, start, out| {
            values(&tensors[index], start, out);
        })?;
        return Ok(());
    }
    let parts: Vec<&[Tensor]> = tensors.chunks(tensors.len().div_ceil(shards.max(1))).collect();
    let mut weight_map = Map::new();
    for (number, part) in parts.iter().enumerate() {
        let name = match parts.len() {
            1 => "model.safetensors".to_string(),
            count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        write_safetensors(&folder.join(&name), part, &values)?;
        weight_map.extend(part.iter().map(|(tensor, _)| (tensor.clone(), Value::from(name.as_str()))));
    }
    if parts.len() > 1 {
        let index = json!({"metadata": {}, "weight_map": weight_map});
        fs::write(folder.join("model.safetensors.index.json"), index.to_string())?;
    }
    Ok(())
}

/// Header, then one tensor after the other.
fn write_safetensors(path: &Path, tensors: &[Tensor], values: &dyn Fn(&Tensor, usize, &mut [f32])) -> Result<()> {
    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += shape.iter().product::<usize>() * 4;
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
    }
    let mut header = Value::from(header).to_string().into_bytes();
    // Data begins at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = BufWriter::new(File::create(path)?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for tensor in tensors {
        let elements = tensor.1.iter().product();
        pth::write_values(&mut out, Type::F32, elements, &|start, piece| values(tensor, start, piece))?;
    }
    out.flush()?;
    Ok(())
}
