//! Finds import cycles: no module may import itself through other modules, parents and children included.
//!
//! An imported path counts as a dependency on the module that defines the item. So an import through a re-export is not
//! a dependency on the module with the re-export, and a `mod.rs` may re-export its children. If a child imports an item
//! that is defined in `mod.rs`, and `mod.rs` uses this child, the two modules form a cycle. Imports in test modules are
//! ignored.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, sources, without_comment};

/// A module: its imported paths, each by its local name, and its code without the imports.
#[derive(Default)]
struct Module {
    imports: BTreeMap<String, Import>,
    code: String,
}

struct Import {
    path: Vec<String>,
    is_public: bool,
}

type Modules = BTreeMap<Vec<String>, Module>;

#[test]
fn no_module_imports_itself_through_others() {
    let modules = read_modules(sources(&["src"]));
    let edges: BTreeMap<_, _> = modules.keys().map(|name| (name.clone(), dependencies(name, &modules))).collect();
    let reachable: BTreeMap<_, _> = edges.keys().map(|name| (name, reach(name, &edges))).collect();
    let in_same =
        |one: &Vec<String>, other: &Vec<String>| reachable[one].contains(other) && reachable[other].contains(one);
    let mut shown = String::new();
    for (name, targets) in &edges {
        for target in targets.iter().filter(|target| in_same(name, target)) {
            shown += &format!("{} imports {}\n", name.join("::"), target.join("::"));
        }
    }
    assert!(shown.is_empty(), "there must be no import cycles:\n{shown}");
}

/// Returns the modules that a module depends on.
fn dependencies(name: &[String], modules: &Modules) -> BTreeSet<Vec<String>> {
    let module = &modules[name];
    let used = |import: &(&String, &Import)| !import.1.is_public || has_path(&module.code, import.0);
    let imported = module.imports.iter().filter(used).map(|(_, import)| import.path.clone());
    let children = modules.keys().filter(|other| other.len() == name.len() + 1 && other.starts_with(name));
    let inline =
        children.flat_map(|child| paths_from(&module.code, &child[name.len()]).map(|rest| [name, &rest].concat()));
    let rooted = ["crate", "self", "super"].into_iter().flat_map(|root| paths_from(&module.code, root));
    let absolute = rooted.map(|path| absolute(name, &path));
    let paths = imported.chain(inline).chain(absolute);
    let targets = paths.filter_map(|path| resolve(&path, modules, 0));
    targets.filter(|target| target != name).collect()
}

/// Returns the module that defines the item at a path.
fn resolve(path: &[String], modules: &Modules, depth: usize) -> Option<Vec<String>> {
    let length = (1..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]))?;
    let (module, rest) = path.split_at(length);
    if let Some(import) = rest.first().and_then(|item| modules[module].imports.get(item))
        && depth < 8
    {
        return resolve(&[&import.path[..], &rest[1..]].concat(), modules, depth + 1).or(Some(module.to_vec()));
    }
    Some(module.to_vec())
}

fn reach(from: &Vec<String>, edges: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> BTreeSet<Vec<String>> {
    let mut reached = BTreeSet::new();
    let mut left: Vec<&Vec<String>> = vec![from];
    while let Some(name) = left.pop() {
        for target in &edges[name] {
            if reached.insert(target.clone()) {
                left.push(target);
            }
        }
    }
    reached
}

fn read_modules(sources: impl Iterator<Item = Source>) -> Modules {
    let mut modules = Modules::new();
    for source in sources {
        let path = source.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        let name: Vec<String> = path.split('/').map(str::to_owned).collect();
        let is_test = name.iter().any(|part| part == "tests");
        if !is_test && !matches!(path, "lib" | "main") {
            modules.insert(name.clone(), read_module(&name, &source));
        }
    }
    modules
}

fn read_module(name: &[String], source: &Source) -> Module {
    let mut module = Module::default();
    let code =
        source.lines.iter().map(|line| without_comment(line)).take_while(|line| !line.starts_with("mod tests {"));
    let mut import = String::new();
    for line in code {
        let is_import = without_visibility(line.trim_start()).starts_with("use ");
        if import.is_empty() && !is_import {
            module.code += line;
            module.code += "\n";
            continue;
        }
        import += line.trim();
        import += " ";
        if line.trim_end().ends_with(';') {
            let is_public = import.starts_with("pub");
            let tree = import.split_once("use ").map_or("", |(_, tree)| tree.trim().trim_end_matches(';'));
            for (path, alias) in expand(tree) {
                let path = absolute(name, &path);
                module.imports.insert(alias, Import { path, is_public });
            }
            import.clear();
        }
    }
    module
}

/// Returns an item without its visibility, such as `pub` or `pub(in crate::a)`.
fn without_visibility(item: &str) -> &str {
    let Some(rest) = item.strip_prefix("pub") else { return item };
    let rest = match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')').map_or("", |(_, rest)| rest),
        None => rest,
    };
    rest.trim_start()
}

/// Returns the paths of a `use` tree, each with its local name.
fn expand(tree: &str) -> Vec<(Vec<String>, String)> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let path: Vec<String> = path
            .trim()
            .split("::")
            .filter(|part| *part != "self" || path.starts_with("self"))
            .map(str::to_owned)
            .collect();
        let last = path.last().cloned().unwrap_or_default();
        return vec![(path, if alias.is_empty() { last } else { alias.trim().to_owned() })];
    };
    let inner = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for c in inner.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("the vector has an element").push(c);
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| expand(&format!("{prefix}{}", part.trim()))).collect()
}

/// Returns a path from the root of the crate. `self` and `super` are relative to `module`. Any other name is a child of
/// `module`.
fn absolute(module: &[String], path: &[String]) -> Vec<String> {
    let (mut base, mut rest) = (module.to_vec(), path);
    match path.first().map(String::as_str) {
        Some("crate") => (base, rest) = (Vec::new(), &path[1..]),
        Some("self") => rest = &path[1..],
        _ => {}
    }
    while rest.first().is_some_and(|part| part == "super") {
        base.pop();
        rest = &rest[1..];
    }
    base.extend_from_slice(rest);
    base
}

/// Returns the paths in the code that start with the name `root`.
fn paths_from<'c>(code: &'c str, root: &'c str) -> impl Iterator<Item = Vec<String>> + 'c {
    code.match_indices(root).filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let rest = &code[at..];
        let is_path = rest[root.len()..].starts_with("::") && !before.is_alphanumeric() && !matches!(before, '_' | ':');
        let end = rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | ':')).unwrap_or(rest.len());
        is_path.then(|| rest[..end].split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect())
    })
}

/// Returns whether the code contains a name as a whole word.
fn has_path(code: &str, name: &str) -> bool {
    super::has_word(code, name)
}

#[test]
fn a_path_is_resolved_through_re_exports_and_relative_names() {
    let file =
        |path: &str, text: &str| Source { path: path.to_owned(), lines: text.lines().map(str::to_owned).collect() };
    let modules = read_modules(
        [
            file("src/a/mod.rs", "mod b;\nmod c;\n#[cfg(test)]\nmod tests;\npub(crate) use self::b::{B,\n    Other};\nuse c::C;\nstruct A;\n"),
            file("src/a/b.rs", "use crate::a::{A, c::{self, C as D}};\nfn f() { crate::d::g(); }\n"),
            file("src/a/c.rs", "use super::B;\npub struct C;\n"),
            file("src/d.rs", "// crate::a\nuse crate::a::B;\n#[cfg(test)]\nmod tests { use crate::a::A; }\n"),
        ]
        .into_iter(),
    );
    let names = |name: &str| {
        let name: Vec<String> = name.split("::").map(str::to_owned).collect();
        dependencies(&name, &modules).iter().map(|target| target.join("::")).collect::<Vec<_>>()
    };
    assert_eq!(names("a"), ["a::c"], "a re-export must not be a dependency");
    assert_eq!(names("a::b"), ["a", "a::c", "d"]);
    assert_eq!(names("a::c"), ["a::b"]);
    assert_eq!(names("d"), ["a::b"]);
}
