"""Array accesses that let the compiler use vector gathers in numba loops.

A loop that gathers from a volume and stores to a row buffer is only turned into vector instructions if the
compiler knows that the store does not change the volume. numba cannot say so; these intrinsics do, with LLVM's
scoped no-alias metadata (LLVM Language Reference, "noalias and alias.scope metadata"): what `gather` reads is one
scope, and what `get` and `put` touch is outside of it. They check no bounds.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np import arrayobj


def _scopes(module: Any, *names: str) -> Any:
    """A list of scopes: ``volume`` is what nothing writes to, ``line`` what one loop writes and a later one reads."""
    domain = module.add_metadata([ir.MetaDataString(module, "paxray projector")])
    return module.add_metadata(
        [module.add_metadata([ir.MetaDataString(module, name), domain]) for name in names]
    )


def _data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    return arrayobj.make_array(array_type)(context, builder, array).data


@intrinsic
def gather(typingctx, array, base, offset):  # type: ignore[no-untyped-def]
    """``array[base + offset]`` of a flat array that nothing in the loop writes to."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data = _data(context, builder, signature.args[0], args[0])
        value = builder.load(builder.gep(builder.gep(data, [args[1]]), [args[2]]))
        value.set_metadata("alias.scope", _scopes(builder.module, "volume"))
        return value

    return array.dtype(array, base, offset), codegen


@intrinsic
def pair(typingctx, array, base, offset):  # type: ignore[no-untyped-def]
    """``array[base + offset]`` of 16 bits and the next as one word of 32, lower half first; else as `gather`."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data = _data(context, builder, signature.args[0], args[0])
        place = builder.gep(builder.gep(data, [args[1]]), [args[2]])
        value = builder.load(builder.bitcast(place, ir.IntType(32).as_pointer()), align=2)
        value.set_metadata("alias.scope", _scopes(builder.module, "volume"))
        return value

    return types.uint32(array, base, offset), codegen


@intrinsic
def get(typingctx, buffer, index):  # type: ignore[no-untyped-def]
    """``buffer[index]`` of a row buffer."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        value = builder.load(builder.gep(_data(context, builder, signature.args[0], args[0]), [args[1]]))
        value.set_metadata("noalias", _scopes(builder.module, "volume", "line"))
        return value

    return buffer.dtype(buffer, index), codegen


def _store(*apart: str) -> Any:
    """Code that stores to a buffer which shares no memory with these scopes."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        place = builder.gep(_data(context, builder, signature.args[0], args[0]), [args[1]])
        builder.store(args[2], place).set_metadata("noalias", _scopes(builder.module, *apart))
        return context.get_dummy_value()

    return codegen


@intrinsic
def put(typingctx, buffer, index, value):  # type: ignore[no-untyped-def]
    """``buffer[index] = value`` of a row buffer; the value must have the buffer's type."""
    return types.void(buffer, index, buffer.dtype), _store("volume", "line")


@intrinsic
def lay(typingctx, line, index, value):  # type: ignore[no-untyped-def]
    """``line[index] = value`` of a line that `take` reads in a later loop."""
    return types.void(line, index, line.dtype), _store("volume")


@intrinsic
def take(typingctx, line, base, offset):  # type: ignore[no-untyped-def]
    """``line[base + offset]`` of a line that `lay` has written and nothing in this loop writes to."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data = _data(context, builder, signature.args[0], args[0])
        value = builder.load(builder.gep(builder.gep(data, [args[1]]), [args[2]]))
        value.set_metadata("alias.scope", _scopes(builder.module, "line"))
        return value

    return line.dtype(line, base, offset), codegen


#: Columns that loops over runs take together; rows of buffers are a multiple of it.
LANES = 16


def _lanewise(combine: Any) -> Any:
    """Code that combines `LANES` values with those at another place and keeps the result at the first."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = signature.args[0]
        lanes = ir.VectorType(context.get_data_type(kind.dtype), LANES).as_pointer()
        align = kind.dtype.bitwidth // 8
        into, out_of = (
            builder.bitcast(builder.gep(_data(context, builder, kind, array), [at]), lanes)
            for array, at in ((args[0], args[1]), (args[2], args[3]))
        )
        found = combine(builder, builder.load(into, align=align), builder.load(out_of, align=align))
        builder.store(found, into, align=align)
        return context.get_dummy_value()

    return codegen


def _lanes_of(into: Any, at: Any, out_of: Any) -> Any:
    return types.void(into, types.int64, out_of, types.int64) if into == out_of else None


# Loops over so few values were unrolled, not turned into vector code.
@intrinsic
def add_lanes(typingctx, into, at, out_of, origin):  # type: ignore[no-untyped-def]
    """``into[at:at + LANES] += out_of[origin:origin + LANES]``, both of one integer type."""
    return _lanes_of(into, at, out_of), _lanewise(lambda builder, a, b: builder.add(a, b))


@intrinsic
def min_lanes(typingctx, into, at, out_of, origin):  # type: ignore[no-untyped-def]
    """The smaller of `into` and `out_of`, else as `add_lanes`."""
    return _lanes_of(into, at, out_of), _lanewise(
        lambda builder, a, b: builder.select(builder.icmp_signed("<", b, a), b, a)
    )


@intrinsic
def max_lanes(typingctx, into, at, out_of, origin):  # type: ignore[no-untyped-def]
    """The larger of `into` and `out_of`, else as `add_lanes`."""
    return _lanes_of(into, at, out_of), _lanewise(
        lambda builder, a, b: builder.select(builder.icmp_signed(">", b, a), b, a)
    )


#: Lanes compared in one vector operation; four of them fill the 64 bits of the result.
_COMPARED = 16


@intrinsic
def differing(typingctx, one, other, index):  # type: ignore[no-untyped-def]
    """64 bits: which of ``one[index:index + 64]`` and ``other[index:index + 64]``, both int32, differ."""
    vector, word = ir.VectorType(ir.IntType(32), _COMPARED), ir.IntType(64)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        found = ir.Constant(word, 0)
        for part in range(64 // _COMPARED):
            at = builder.add(args[2], ir.Constant(args[2].type, part * _COMPARED))
            lanes = []
            for kind, array in zip(signature.args[:2], args[:2], strict=True):
                place = builder.gep(_data(context, builder, kind, array), [at])
                loaded = builder.load(builder.bitcast(place, vector.as_pointer()), align=4)
                loaded.set_metadata("noalias", _scopes(builder.module, "volume", "line"))
                lanes.append(loaded)
            bits = builder.bitcast(builder.icmp_signed("!=", *lanes), ir.IntType(_COMPARED))
            found = builder.or_(found, builder.shl(builder.zext(bits, word), word(part * _COMPARED)))
        return found

    return types.uint64(one, other, index), codegen


@intrinsic
def positive(typingctx, counts, index):  # type: ignore[no-untyped-def]
    """64 bits: which of ``counts[index:index + 64]``, int16, are above zero."""
    vector, word = ir.VectorType(ir.IntType(16), 64), ir.IntType(64)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        place = builder.gep(_data(context, builder, signature.args[0], args[0]), [args[1]])
        loaded = builder.load(builder.bitcast(place, vector.as_pointer()), align=2)
        return builder.bitcast(builder.icmp_signed(">", loaded, ir.Constant(vector, None)), word)

    return types.uint64(counts, types.int64), codegen


@intrinsic
def unlike(typingctx, array, at, back):  # type: ignore[no-untyped-def]
    """Bit n of 32: whether ``array[at + n]`` differs from ``array[at + n - back]``, both in a flat array."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        _, at, back = args
        item = context.get_data_type(signature.args[0].dtype)
        data = _data(context, builder, signature.args[0], args[0])

        def lanes(place):  # type: ignore[no-untyped-def]
            pointer = builder.bitcast(builder.gep(data, [place]), ir.VectorType(item, 32).as_pointer())
            return builder.load(pointer, align=item.width // 8)

        differs = builder.icmp_unsigned("!=", lanes(at), lanes(builder.sub(at, back)))
        return builder.bitcast(differs, ir.IntType(32))

    return types.uint32(array, types.int64, types.int64), codegen


@intrinsic
def larger(typingctx, one, other):  # type: ignore[no-untyped-def]
    """The larger of two numbers that are no NaN, in a form that loops over it are turned into vector code."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        flags = ("nnan", "nsz")
        return builder.select(builder.fcmp_ordered(">", *args, flags=flags), *args, flags=flags)

    return types.float64(types.float64, types.float64), codegen


@intrinsic
def claim(typingctx, turn):  # type: ignore[no-untyped-def]
    """Take the next number from ``turn[0]`` of an int64 array: no two threads get the same."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        counter = _data(context, builder, signature.args[0], args[0])
        return builder.atomic_rmw("add", counter, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(turn), codegen


@intrinsic
def lowest(typingctx, bits):  # type: ignore[no-untyped-def]
    """Number of the lowest set bit of a word; the word's width where none is set."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _widened(builder, builder.cttz(args[0], ir.Constant(ir.IntType(1), 0)))

    return types.int64(bits), codegen


@intrinsic
def highest(typingctx, bits):  # type: ignore[no-untyped-def]
    """Number of the highest set bit of a word; -1 where none is set."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        word = args[0].type
        zeros = builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))
        return _widened(builder, builder.sub(ir.Constant(word, word.width - 1), zeros))

    return types.int64(bits), codegen


@intrinsic
def ones(typingctx, bits):  # type: ignore[no-untyped-def]
    """How many bits of a word are set."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _widened(builder, builder.ctpop(args[0]))

    return types.int64(bits), codegen


def _widened(builder: Any, number: Any) -> Any:
    word = ir.IntType(64)
    return number if number.type == word else builder.zext(number, word)
