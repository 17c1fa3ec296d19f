//! Walking a tree without recursion: a page may nest 100,000 elements, the stack has 1 MiB.

use dom_query::{NodeData, NodeId, NodeRef};

/// Depth of a page's tree, as browsers limit it: the engine recurses over elements.
pub(crate) const DEPTH_MAX: usize = 512;

/// What a walk meets.
pub(crate) trait Visitor {
    /// An element opens; false leaves it out with all that is in it.
    fn open(&mut self, node: NodeRef<'_>, name: &str) -> bool;
    /// An element that was entered closes.
    fn close(&mut self, name: &str);
    /// A text node.
    fn text(&mut self, text: &str);
}

/// Visits what is below `root` in document order, `root` itself too.
pub(crate) fn walk(root: NodeRef<'_>, visitor: &mut impl Visitor) {
    let mut at = root;
    loop {
        if enter(at, visitor)
            && let Some(child) = at.first_child()
        {
            at = child;
            continue;
        }
        // Leave upward until there is a next sibling.
        loop {
            if at.id == root.id {
                leave(at, visitor);
                return;
            }
            leave(at, visitor);
            if let Some(next) = at.next_sibling() {
                at = next;
                break;
            }
            let Some(parent) = at.parent() else { return };
            at = parent;
        }
    }
}

/// Makes the tree below `root` no deeper than [`DEPTH_MAX`], as browsers do: what is deeper becomes
/// a child of its ancestor at that depth.
pub(crate) fn limit_depth(root: NodeRef<'_>) {
    let mut path: Vec<NodeId> = Vec::new();
    let mut deeper: Vec<(NodeId, NodeId)> = Vec::new();
    let mut next = Some(root);
    while let Some(at) = next {
        if path.len() > DEPTH_MAX {
            deeper.push((at.id, path[DEPTH_MAX - 1]));
        }
        path.push(at.id);
        next = at.first_child().or_else(|| after(at, &mut path));
    }
    for (node, ancestor) in deeper {
        NodeRef::new(ancestor, root.tree).append_child(&node);
    }
}

/// The node that follows `at` and its subtree, with `path` cut to its ancestors.
fn after<'a>(mut at: NodeRef<'a>, path: &mut Vec<NodeId>) -> Option<NodeRef<'a>> {
    loop {
        path.pop();
        if path.is_empty() {
            return None;
        }
        if let Some(sibling) = at.next_sibling() {
            return Some(sibling);
        }
        at = at.parent()?;
    }
}

/// True when the node's children are to be visited.
fn enter(node: NodeRef<'_>, visitor: &mut impl Visitor) -> bool {
    let name = node.query_or(None, |inner| match &inner.data {
        NodeData::Element(element) => Some(element.name.local.clone()),
        NodeData::Text { contents } => {
            visitor.text(contents);
            None
        }
        _ => None,
    });
    match name {
        Some(name) => visitor.open(node, &name),
        None => !node.is_text(),
    }
}

fn leave(node: NodeRef<'_>, visitor: &mut impl Visitor) {
    if let Some(name) = node.qual_name_ref().map(|name| name.local.clone()) {
        visitor.close(&name);
    }
}

#[cfg(test)]
mod tests {
    use dom_query::Document;

    use super::*;

    #[test]
    fn deep_trees_become_shallow_and_keep_their_text() {
        let doc = Document::from(format!("a{}b<p>c</p>d", "<div>x".repeat(2_000)));
        let text = doc.text();
        limit_depth(doc.root());
        let depth = doc.root().descendants_it().map(|node| node.ancestors_it(None).count()).max();
        assert_eq!(depth, Some(DEPTH_MAX));
        let counts = |s: &str| {
            s.chars().fold([0; 128], |mut n, c| {
                n[c as usize] += 1;
                n
            })
        };
        assert_eq!(counts(&doc.text()), counts(&text));
        assert!(doc.tree.validate().is_ok());
    }

    #[test]
    fn usual_trees_stay() {
        let doc = Document::from("<p>a<b>c</b>d<p>e");
        let html = doc.html();
        limit_depth(doc.root());
        assert_eq!(doc.html(), html);
    }
}
