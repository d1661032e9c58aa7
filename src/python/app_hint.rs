//! What the operator may have meant, for the line of an application that was not found.
//!
//! Called by the loader. Files are read for the names that they define and never run, because the name of the file was
//! not what the operator should have written.

use std::path::Path;

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

use crate::config::suggest;

/// ` Did you mean 'app:app'?` when a module has no attribute `missing` but one that it may stand for, else nothing.
pub(super) fn for_attribute(module: &Bound<'_, PyModule>, named: &str, missing: &str) -> String {
    let names = module.dict().iter().filter_map(|(name, value)| {
        let name: String = name.extract().ok()?;
        value.is_callable().then_some(name)
    });
    let names: Vec<String> = names.filter(|name| !name.starts_with('_')).collect();
    match likely(&names, missing) {
        Some(target) => format!(" Did you mean '{named}:{target}'?"),
        None => String::new(),
    }
}

/// The error of a module that cannot be imported because it is the name of a file, which is the commonest mistake.
pub(super) fn for_file(py: Python<'_>, name: &str, target: &str) -> Option<PyErr> {
    let is_script = Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "py");
    let file = match is_script {
        true => name.to_owned(),
        false if name.contains('/') => format!("{name}.py"),
        false => return None,
    };
    let source = std::fs::read_to_string(&file).ok()?;
    let names = defined(py, &source).unwrap_or_default();
    let variable = target.split(['.', '(']).next().unwrap_or_default();
    let target = match names.iter().any(|name| name == variable) {
        true => target.to_owned(),
        false => likely(&names, variable).unwrap_or_else(|| target.to_owned()),
    };
    let meant = as_module(file.strip_suffix(".py")?, &target);
    Some(PyImportError::new_err(format!(
        "Failed to find application, did you mean {meant}?"
    )))
}

/// A path without its extension as the module's name, with the directory to start in where that is another.
fn as_module(path: &str, target: &str) -> String {
    let mut path = path;
    while let Some(rest) = path.strip_prefix("./") {
        path = rest;
    }
    match path.rsplit_once('/') {
        Some((directory, stem)) if path.starts_with(['/', '.']) => {
            let directory = if directory.is_empty() { "/" } else { directory };
            format!("'{stem}:{target}' with --chdir {directory}")
        }
        _ => format!("'{}:{target}'", path.replace('/', ".")),
    }
}

/// The top-level names of a module's source: assignments, functions, imports.
fn defined(py: Python<'_>, source: &str) -> PyResult<Vec<String>> {
    let mut names = Vec::new();
    let body = py.import("ast")?.call_method1("parse", (source,))?;
    for statement in body.getattr("body")?.try_iter()? {
        let statement = statement?;
        match statement.get_type().name()?.to_str()? {
            "Assign" => {
                for target in statement.getattr("targets")?.try_iter()? {
                    if let Ok(name) = target?.getattr("id") {
                        names.push(name.extract()?);
                    }
                }
            }
            "AnnAssign" => {
                if let Ok(name) = statement.getattr("target")?.getattr("id") {
                    names.push(name.extract()?);
                }
            }
            "FunctionDef" => names.push(statement.getattr("name")?.extract()?),
            "ImportFrom" => {
                for alias in statement.getattr("names")?.try_iter()? {
                    let alias = alias?;
                    let given = alias.getattr("asname")?;
                    let name = if given.is_none() {
                        alias.getattr("name")?
                    } else {
                        given
                    };
                    names.push(name.extract()?);
                }
            }
            _ => {}
        }
    }
    Ok(names)
}

/// The name that stands for the application among `names`: one that is spelt alike, a usual one, or a usual factory.
fn likely(names: &[String], missing: &str) -> Option<String> {
    if let Some(name) = suggest::closest(missing, names.iter().map(String::as_str)) {
        return Some(name.to_owned());
    }
    let has = |name: &&&str| names.iter().any(|other| other == **name);
    if let Some(name) = APPLICATIONS.iter().find(has) {
        return Some((*name).to_owned());
    }
    let factory = FACTORIES.iter().find(has)?;
    Some(format!("{factory}()"))
}

const APPLICATIONS: [&str; 5] = ["application", "app", "wsgi_app", "wsgi", "server"];
const FACTORIES: [&str; 4] = ["create_app", "make_app", "get_app", "build_app"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::with_interpreter;

    #[test]
    fn a_usual_name_is_meant_or_one_that_is_spelt_alike() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        let found = |among: &[&str], missing| likely(&names(among), missing);
        assert_eq!(
            found(&["run", "app"], "application").as_deref(),
            Some("app")
        );
        assert_eq!(
            found(&["create_app"], "application").as_deref(),
            Some("create_app()")
        );
        assert_eq!(
            found(&["dashboard"], "dashbord").as_deref(),
            Some("dashboard")
        );
        assert_eq!(found(&["run"], "application"), None);
    }

    #[test]
    fn a_path_becomes_a_module() {
        for (path, module) in [
            ("app", "'app:x'"),
            ("./app", "'app:x'"),
            ("./shop/app", "'shop.app:x'"),
            ("shop/app", "'shop.app:x'"),
            ("/srv/app", "'app:x' with --chdir /srv"),
            ("../shop/app", "'app:x' with --chdir ../shop"),
        ] {
            assert_eq!(as_module(path, "x"), module, "{path}");
        }
    }

    #[test]
    fn the_names_of_a_source_are_found_without_running_it() {
        with_interpreter(|py| {
            let source = "import os\nfrom a import b as c, d\napp = 1 / 0\nx: int = 1\ndef make_app(): pass\nx.y = 1\n";
            let names = defined(py, source).expect("it can be parsed");
            assert_eq!(names, ["c", "d", "app", "x", "make_app"]);
            assert!(defined(py, "def").is_err());
        });
    }
}
