//! What the README says of the settings is what the program says.

#[test]
fn the_readmes_table_of_settings_is_the_programs() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("the README is there");
    let table = forebay::config::table_markdown();
    assert!(readme.contains(&table), "the README's table of settings must read:\n\n{table}");
}
