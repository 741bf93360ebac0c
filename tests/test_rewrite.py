"""The rewriter: every change typed, heard, named and located; a refused one leaves no trace. The worklist driver."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from kit.net import Net

from mlc.ir import dims
from mlc.ir.core import Ints, Module, Op
from mlc.ir.dtypes import DType
from mlc.ir.equal import difference
from mlc.ir.errors import Code, MlcError
from mlc.ir.rewrite import Event, Rewriter
from mlc.ir.types import tensor
from mlc.ir.verify import verify
from mlc.ir.worklist import drive

F32, I64 = DType.F32, DType.I64


@pytest.fixture
def module() -> Module:
    """y = Relu(x @ w); z = Neg(y)"""
    net = Net()
    x = net.input("x", F32, "N", 2)
    product = net.op("MatMul", [x, net.const(np.ones((2, 3), np.float32), "w")])
    y = net.op("Relu", [product])
    return net.done(y, net.op("Neg", [y]))


def ops(module: Module) -> list[Op]:
    return list(module.graph.ops)


def test_an_inserted_op_is_typed_named_and_located(module: Module) -> None:
    rw = Rewriter(module, by="simplify")
    relu = ops(module)[1]
    made = rw.insert("Abs", relu.operands, before=relu)
    assert made.result.type == tensor(F32, "N", 3)
    assert made.loc.origin == relu.loc.origin
    assert made.loc.passes == ("simplify",)
    assert made.name == f"{relu.name}__simplify"
    assert ops(module).index(made) == 1
    again = rw.insert("Abs", [made.result], before=relu, origin=made, names=["mine"])
    assert again.name == f"{relu.name}__simplify_1"
    assert again.result.name == "mine"
    assert again.loc.passes == ("simplify",)
    rw.replace(relu, [again.result])
    verify(module)


def test_an_op_at_the_end_is_named_after_its_kind(module: Module) -> None:
    rw = Rewriter(module)
    assert rw.insert("Abs", [module.graph.inputs[0]], before=module.graph).name == "Abs"
    assert rw.insert("Abs", [module.graph.inputs[0]], before=module.graph.ret).name == "Abs_1"
    verify(module)


@pytest.mark.parametrize("results", [None, [tensor(F32, 5)]])
def test_a_refused_insertion_leaves_no_trace(module: Module, results: list | None) -> None:
    before = module.clone()
    rw = Rewriter(module, by="p")
    heard: list[Event] = []
    rw.listen(heard.append)
    x, w = module.graph.inputs[0], module.constants["w"]
    body = rw.body([x.type])
    rw.yields(body, [rw.insert("Relu", [x], before=body).result])
    uses = (x.uses[:1], w.uses)
    with pytest.raises(MlcError) as caught:
        rw.insert("MatMul", [w, w], before=module.graph, results=results, regions={"body": body})
    assert caught.value.diagnostics[0].code in (Code.BROKEN_MODEL, Code.VERIFY)
    assert (x.uses, w.uses) == uses
    assert not [e for e in heard if e.op is not None and e.op.kind == "MatMul"]
    assert difference(module, before) is None
    verify(module)


def test_given_result_types_are_held_against_inference(module: Module) -> None:
    rw = Rewriter(module, by="p")
    x = module.graph.inputs[0]
    with pytest.raises(MlcError, match=r"result 0 of Relu is f32\[N, 2\], but i64\[N, 2\] was asked for"):
        rw.insert("Relu", [x], before=module.graph, results=[tensor(I64, "N", 2)])
    finer = rw.insert("Relu", [x], before=module.graph, results=[tensor(F32, 4, dims.fresh())])
    assert finer.result.type == tensor(F32, 4, 2)
    foreign = rw.insert("their.domain::Thing", [x], before=module.graph, results=[tensor(I64, 7)])
    assert foreign.result.type == tensor(I64, 7)
    with pytest.raises(MlcError, match="cannot be inferred"):
        rw.insert("their.domain::Thing", [x], before=module.graph)
    assert rw.insert("their.domain::Sink", [x], before=module.graph, results=[]).results == ()


def test_replacing_keeps_the_interface_and_what_was_known(module: Module) -> None:
    rw = Rewriter(module, by="p")
    _, relu, neg = ops(module)
    neg.result.declared = tensor(F32, "batch", 3)
    names = list(module.graph.output_names)
    vague = rw.insert("their::Neg", neg.operands, before=neg, results=[tensor(F32, dims.fresh(), dims.fresh())])
    rw.replace(neg, [vague.result])
    assert module.graph.output_names == names
    assert module.graph.outputs[1] is vague.result
    assert vague.result.type == tensor(F32, "N", 3)
    assert vague.result.declared == tensor(F32, "batch", 3)
    assert neg.parent is None
    assert relu.result.users == (module.graph.ret, vague)
    assert module.graph.ret.loc.passes == ("p",)
    verify(module)


def test_a_value_of_another_type_is_no_substitute(module: Module) -> None:
    before = module.clone()
    rw = Rewriter(module, by="p")
    relu = ops(module)[1]
    wrong = rw.constant(np.ones((2, 4), np.float32), "wrong")
    for change in (lambda: rw.replace(relu, [wrong]), lambda: rw.replace_uses(relu.result, wrong)):
        with pytest.raises(MlcError, match="cannot stand in for") as caught:
            change()
        assert caught.value.diagnostics[0].code is Code.VERIFY
    rw.drop_constant(wrong)
    assert difference(module, before) is None
    neg = ops(module)[2]
    rw.replace_uses(relu.result, wrong := rw.constant(np.ones((2, 4), np.float32), "w4"), only=[neg], retype=True)
    with pytest.raises(MlcError, match="result-types"):
        verify(module)
    rw.retype(neg.result, tensor(F32, 2, 4))
    verify(module)
    assert relu.result.users == (module.graph.ret,)
    assert wrong.users == (neg,)


def test_arguments_and_constants_keep_their_type(module: Module) -> None:
    """The type of an input is the interface: what a replaced value claimed does not narrow it."""
    rw = Rewriter(module)
    x = module.graph.inputs[0]
    narrow = rw.insert("Identity", [x], before=module.graph, results=[tensor(F32, 8, 2)])
    rw.replace_uses(x, narrow.result, only=[ops(module)[0]])
    rw.replace(narrow, [x])
    assert x.type == tensor(F32, "N", 2)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda rw, m: rw.erase(ops(m)[0]), "still has uses"),
        (lambda rw, m: rw.erase(m.graph.ret), "a terminator stays"),
        (lambda rw, m: rw.replace(ops(m)[0], [ops(m)[0].result]), "cannot take its own place"),
        (lambda rw, m: rw.replace(ops(m)[0], []), "0 values for 1 results"),
        (lambda rw, m: rw.drop_constant(m.constants["w"]), "still has uses"),
        (lambda rw, m: rw.rename(ops(m)[0].result, "w"), "is taken"),
        (lambda rw, m: rw.rename(m.graph.inputs[0], "y"), "interface"),
        (lambda rw, m: rw.retype(m.constants["w"], tensor(F32)), "type of its elements"),
        (lambda rw, m: rw.set_operand(m.graph.ret, 0, None), "cannot be left out"),
        (lambda rw, m: rw.set_operand(m.graph.ret, 2, m.graph.inputs[0]), "outputs of a graph are fixed"),
        (lambda rw, m: rw.set_operand(ops(m)[0], 0, m.clone().constants["w"]), "no constant of this module"),
        (lambda rw, m: rw.set_operand(ops(m)[0], 0, m.clone().graph.inputs[0]), "not visible"),
        (lambda rw, m: rw.insert("Relu", m.clone().graph.inputs, before=m.graph), "not visible"),
    ],
)
def test_what_only_a_wrong_pass_can_do(module: Module, mistake: Callable, message: str) -> None:
    before = module.clone()
    with pytest.raises(AssertionError, match=message):
        mistake(Rewriter(module), module)
    assert difference(module, before) is None
    verify(module)


def test_an_erased_value_cannot_be_read(module: Module) -> None:
    rw = Rewriter(module)
    made = rw.insert("Abs", [module.graph.inputs[0]], before=module.graph)
    rw.erase(made)
    with pytest.raises(AssertionError, match="erased op"):
        rw.set_operand(ops(module)[0], 0, made.result)


def test_events_tell_all_that_happens(module: Module) -> None:
    rw = Rewriter(module, by="p")
    heard: list[Event] = []
    rw.listen(heard.append)
    relu, x = ops(module)[1], module.graph.inputs[0]
    old = relu.operands[0]
    c = rw.constant(np.float32(1), "c")
    new = rw.insert("Add", [old, c], before=relu)
    rw.set_operand(relu, 0, new.result)
    rw.set_operand(relu, 0, new.result)  # no change, no event
    rw.set_attr(relu, "alpha", 0.5)
    rw.set_attr(relu, "alpha", None)
    rw.rename(c, "d")
    rw.rename(c, "d")
    rw.retype(relu.result, tensor(F32, 4, 3))
    rw.retype(relu.result, tensor(F32, 4, 3))
    rw.set_operand(relu, 0, old)
    rw.erase(new)
    rw.drop_constant(c)
    kinds = "add_constant insert set_operand set_attr set_attr rename retype set_operand erase drop_constant"
    assert [e.kind for e in heard] == kinds.split()
    assert rw.changed == len(heard)
    assert heard[2].old is old
    assert heard[2].value is new.result
    assert heard[8].operands == (old, c)
    assert x.uses
    assert not c.uses
    rw.unlisten(heard.append)
    rw.set_attr(relu, "alpha", 1.0)
    assert rw.changed == len(heard) + 1


def test_an_input_passed_on_stays_passed_on() -> None:
    net = Net()
    x = net.input("x", F32, 2)
    module = net.done(x, net.op("Neg", [x]))
    rw = Rewriter(module)
    relu = rw.insert("Relu", [x], before=module.graph._first)  # type: ignore[arg-type]
    rw.replace_uses(x, relu.result, only=[module.graph.ret, *(op for op in module.graph.ops if op.kind == "Neg")])
    assert module.graph.outputs[0] is x
    verify(module)
    with pytest.raises(AssertionError, match="name of an input is that input"):
        rw.set_operand(module.graph.ret, 0, relu.result)


def test_a_name_asked_for_can_be_given(module: Module) -> None:
    rw = Rewriter(module)
    value = ops(module)[0].result
    name = rw.fresh_name("w")
    rw.rename(value, name)
    assert value.name == name == "w_1"
    with pytest.raises(AssertionError, match="is taken"):
        rw.rename(ops(module)[1].result, name)
    verify(module)


def test_names_never_come_back(module: Module) -> None:
    rw = Rewriter(module)
    first = rw.constant(np.float32(1), "w")
    assert first.name == "w_1"
    rw.drop_constant(first)
    assert rw.constant(np.float32(1), "w").name == "w_2"
    output = module.graph.output_names[0]
    assert rw.fresh_name(output) != output
    assert rw.fresh_name("") != ""


def test_renaming_a_constant_keeps_its_place(module: Module) -> None:
    rw = Rewriter(module)
    last = rw.constant(np.float32(1), "last")
    rw.insert("Add", [module.graph.inputs[0], last], before=module.graph)
    rw.rename(module.constants["w"], "weight")
    assert list(module.constants) == ["weight", "last"]
    verify(module)


def test_retyping_forgets_what_the_file_declared(module: Module) -> None:
    rw = Rewriter(module)
    value = ops(module)[0].result
    value.declared = value.type
    rw.retype(value, value.type)
    assert value.declared is not None
    rw.retype(value, tensor(F32, 4, 3))
    assert value.declared is None


def build_if(module: Module, rw: Rewriter, condition: object) -> Op:
    """Replaces the last op by an If that computes it in one branch and passes its operand through in the other."""
    old = ops(module)[-1]
    regions = {}
    for name in ("then_branch", "else_branch"):
        body = rw.body(name=name)
        inner = rw.insert(old.kind, old.operands, before=body, origin=old).result if name == "then_branch" else None
        regions[name] = rw.yields(body, [inner if inner is not None else old.operands[0]])
    flag = rw.constant(np.asarray(condition, np.bool_), "flag")
    made = rw.insert("If", [flag], before=old, regions=regions, origin=old)
    rw.replace(old, [made.result])
    return made


def test_bodies_are_built_inlined_and_erased(module: Module) -> None:
    before = module.clone()
    rw = Rewriter(module, by="p")
    made = build_if(module, rw, True)
    assert made.result.type == tensor(F32, "N", 3)
    verify(module)
    heard: list[Event] = []
    rw.listen(heard.append)
    outputs = rw.inline(made.regions["then_branch"], [], before=made)
    verify(module)
    rw.replace(made, outputs)
    verify(module)
    assert [e.kind for e in heard].count("move") == 1
    assert [op.kind for op in module.walk()] == [op.kind for op in before.walk()]
    assert heard[-1].kind == "erase"
    assert {v.name for v in heard[-1].operands} >= {"flag"}


def test_erasing_an_op_erases_the_uses_of_its_bodies(module: Module) -> None:
    rw = Rewriter(module)
    made = build_if(module, rw, False)
    captured = next(iter(made.regions["then_branch"].ops)).operands[0]
    assert captured is not None
    rw.replace(made, [captured])
    assert all(use.op.parent is module.graph for use in captured.uses)
    assert not module.constants["flag"].uses
    verify(module)


def test_a_loop_body_is_inlined_with_its_arguments() -> None:
    net = Net()
    x = net.input("x", F32, 3)
    body = net.body("body")
    body.argument(tensor(I64))
    going, carried = body.argument(tensor(DType.BOOL)), body.argument(x.type)
    inner = body.op("Relu", [carried], [x.type])
    body.output(going)
    body.output(inner)
    trips = net.const(np.int64(1))
    loop = net.node("Loop", [trips, None, x], [x.type], regions={"body": body.graph})
    module = net.done(loop.result)
    verify(module)
    rw = Rewriter(module)
    index, true = rw.constant(np.int64(0), "index"), rw.constant(np.bool_(True), "true")
    _, value = rw.inline(loop.regions["body"], [index, true, x], before=loop)
    rw.replace(loop, [value])
    verify(module)
    assert [op.kind for op in module.walk()] == ["Relu"]
    assert ops(module)[0].operands == (x,)


# -- the worklist ----------------------------------------------------------------------------------------------------


def drop_double_negation(rw: Rewriter) -> Callable[[Op], str | None]:
    def visit(op: Op) -> str | None:
        before = op.operands[0].op if op.kind == "Neg" and op.operands[0] is not None else None
        if before is not None and before.kind == "Neg":
            assert before.operands[0] is not None
            rw.replace(op, [before.operands[0]])
            return "double-negation"
        if not any(v.uses for v in op.results):
            rw.erase(op)
            return "dead"
        return None

    return visit


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8])
def test_the_driver_reaches_the_fixed_point(count: int) -> None:
    net = Net()
    x = value = net.input("x", F32, 2)
    for _ in range(count):
        value = net.op("Neg", [value])
    module = net.done(value)
    rw = Rewriter(module)
    fired = drive(rw, drop_double_negation(rw))
    assert len(ops(module)) == count % 2
    assert fired["double-negation"] == fired["dead"] == count // 2
    assert (module.graph.outputs[0] is x) == (count % 2 == 0)
    verify(module)
    rw.insert("Abs", [x], before=module.graph)  # the driver no longer listens


def test_the_driver_is_deterministic_and_goes_on_in_new_ops() -> None:
    def run() -> list[str]:
        net = Net()
        x = net.input("x", F32, 2)
        module = net.done(*(net.op("Softplus", [x]) for _ in range(3)))
        rw, order = Rewriter(module), []

        def visit(op: Op) -> str | None:
            order.append(op.name)
            if op.kind == "Softplus":
                one = rw.constant(np.float32(1), "one")
                exp = rw.insert("Exp", op.operands, before=op)
                total = rw.insert("Add", [exp.result, one], before=op)
                rw.replace(op, [rw.insert("Log", [total.result], before=op).result])
                return "softplus"
            return None

        assert drive(rw, visit) == {"softplus": 3}
        verify(module)
        assert {op.name for op in module.walk()} <= set(order)
        return order

    assert run() == run()


def test_rules_that_undo_each_other_are_named() -> None:
    net = Net()
    x = net.input("x", F32, 2)
    module = net.done(net.op("Relu", [x]))
    rw = Rewriter(module)

    def visit(op: Op) -> str:
        other = "Abs" if op.kind == "Relu" else "Relu"
        rw.replace(op, [rw.insert(other, op.operands, before=op).result])
        return f"to-{other.lower()}"

    with pytest.raises(RuntimeError, match=r"does not end.*to-(abs|relu) \(\d+ times\), to-(abs|relu)"):
        drive(rw, visit)


def test_attributes_can_be_set_and_removed(module: Module) -> None:
    rw = Rewriter(module, by="p")
    op = ops(module)[0]
    rw.set_attr(op, "pads", Ints((1, 1)))
    assert op.attrs["pads"] == Ints((1, 1))
    rw.set_attr(op, "pads", None)
    assert "pads" not in op.attrs
    assert op.loc.passes == ("p",)
