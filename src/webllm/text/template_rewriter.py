"""Puts payments to the budget into a parsed template, wherever Jinja itself offers no hook.

Bodies that can run many times (loops, macros, blocks) begin with a payment for their own text, and
expressions that read or build large values pass them through filters of `template_sandbox`. The
names of these filters begin with an underscore; a template that calls them only pays more.
"""

# ruff: noqa: N802 (the methods are named by jinja2)

from typing import TypeVar

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

_Body = TypeVar("_Body", nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block, nodes.FilterBlock)


class BudgetRewriter(NodeTransformer):
    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._pay_for_body(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._pay_for_body(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._pay_for_body(node)

    def visit_Block(self, node: nodes.Block) -> nodes.Node:
        return self._pay_for_body(node)

    def visit_FilterBlock(self, node: nodes.FilterBlock) -> nodes.Node:
        return self._pay_for_body(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_concat")

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "_literal")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "_literal")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "_literal") if node.ctx == "load" else node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        self.generic_visit(node)
        if node.node is not None:  # None in {% filter %}: the text of the block
            node.node = _filtered(node.node, "_counted")
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        self.generic_visit(node)
        if node.name not in ("defined", "undefined", "none"):
            node.node = _filtered(node.node, "_counted")
        return node

    def visit_Operand(self, node: nodes.Operand) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.expr, nodes.Const):
            node.expr = _filtered(node.expr, "_counted")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filtered(node.node, "_counted")
        return node

    def _pay_for_body(self, node: _Body) -> _Body:
        num_chars = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        num_chars += sum(len(str(const.value)) for const in node.find_all(nodes.Const))
        self.generic_visit(node)
        payment = _filtered(nodes.Const(num_chars, lineno=node.lineno), "_spend")
        node.body.insert(0, nodes.ExprStmt(payment, lineno=node.lineno))
        return node


def _filtered(node: nodes.Expr, name: str) -> nodes.Expr:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
