//! The floors: a crate depends on strictly lower floors only (dev-dependencies excepted).

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Prints the floors of the workspace; fails if a dependency does not go down.
pub fn run() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .output()
        .context("cargo metadata did not start")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let house = House::read(&serde_json::from_slice(&output.stdout).context("cargo metadata wrote no JSON")?)?;
    print!("{}", house.plan());
    let faults = house.faults();
    if !faults.is_empty() {
        bail!("dependencies that do not go down:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

/// What the manifests say.
struct House {
    /// Floor of each crate.
    floors: BTreeMap<String, u64>,
    /// Dependencies between crates of the workspace, dev-dependencies left out.
    edges: Vec<(String, String)>,
}

impl House {
    fn read(metadata: &Value) -> Result<Self> {
        let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
        let name_of = |value: &Value| value["name"].as_str().map(str::to_owned).context("a package has no name");
        let mut floors = BTreeMap::new();
        for package in packages {
            let name = name_of(package)?;
            let floor = package["metadata"]["dinov3"]["floor"].as_u64();
            let floor = floor.with_context(|| format!("{name} has no package.metadata.dinov3.floor"))?;
            floors.insert(name, floor);
        }
        let mut edges = Vec::new();
        for package in packages {
            let from = name_of(package)?;
            for dependency in package["dependencies"].as_array().into_iter().flatten() {
                let to = name_of(dependency)?;
                if dependency["kind"] != "dev" && floors.contains_key(&to) {
                    edges.push((from.clone(), to));
                }
            }
        }
        Ok(Self { floors, edges })
    }

    /// One line per floor, the highest first.
    fn plan(&self) -> String {
        let mut by_floor: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        for (name, floor) in &self.floors {
            by_floor.entry(*floor).or_default().push(name);
        }
        by_floor.iter().rev().map(|(floor, names)| format!("floor {floor}  {}\n", names.join(", "))).collect()
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (from, to) in &self.edges {
            let (upper, lower) = (self.floors[from], self.floors[to]);
            if lower >= upper {
                faults.push(format!("{from} (floor {upper}) -> {to} (floor {lower})"));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, floor: u64, dependencies: Value) -> Value {
        json!({"name": name, "metadata": {"dinov3": {"floor": floor}}, "dependencies": dependencies})
    }

    #[test]
    fn an_upward_edge_is_found() {
        let metadata = json!({"packages": [
            package("ground", 0, json!([{"name": "hall", "kind": null}, {"name": "serde", "kind": null}])),
            package("hall", 2, json!([{"name": "ground", "kind": null}, {"name": "door", "kind": "dev"}])),
            package("neighbour", 2, json!([{"name": "hall", "kind": "build"}])),
            package("door", 4, json!([{"name": "hall", "kind": null}])),
        ]});
        let house = House::read(&metadata).unwrap();
        assert_eq!(house.faults(), ["ground (floor 0) -> hall (floor 2)", "neighbour (floor 2) -> hall (floor 2)"]);
        assert_eq!(house.plan(), "floor 4  door\nfloor 2  hall, neighbour\nfloor 0  ground\n");
    }

    #[test]
    fn a_crate_without_floor_is_an_error() {
        let metadata = json!({"packages": [{"name": "lost", "metadata": null, "dependencies": []}]});
        assert!(House::read(&metadata).is_err());
    }

    #[test]
    fn this_house_stands() {
        run().unwrap();
    }
}
