// The C interface for Python. Shapes and types are checked by the Python side.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <pthread.h>
#include <unistd.h>

#include <cstdlib>
#include <new>
#include <optional>
#include <stdexcept>

#include "ouigemm/ouigemm.h"

namespace nb = nanobind;
using Array = nb::ndarray<nb::ro, nb::device::cpu>;
using Matrix = nb::ndarray<nb::ro, nb::ndim<2>, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<2>, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

static void wait_for_the_end(void *)
{
    for (;;)
        pause();
}

// Python ends a daemon thread that wants the GIL after the interpreter is gone, and does so by unwinding its
// stack (up to 3.13). nanobind's frames cannot be unwound: the whole program would be aborted. Such a thread
// waits here instead, until the process is gone too.
static void take_gil(PyThreadState *thread)
{
    pthread_cleanup_push(wait_for_the_end, nullptr);
    PyEval_RestoreThread(thread);
    pthread_cleanup_pop(0);
}

struct Unlocked {
    PyThreadState *thread = PyEval_SaveThread();

    Unlocked() = default;
    Unlocked(const Unlocked &) = delete;
    ~Unlocked() { take_gil(thread); }
};

// A result that overlaps an operand is a ValueError with the name of that operand.
static void raise(ouigemm_status status)
{
    if (status == OUIGEMM_NO_MEMORY)
        throw std::bad_alloc();
    if (status == OUIGEMM_NOT_AVAILABLE)
        throw std::runtime_error("this rung is not available here");
    if (status == OUIGEMM_C_OVERLAPS_A)
        throw nb::value_error("a");
    if (status == OUIGEMM_C_OVERLAPS_B)
        throw nb::value_error("b");
}

static ouigemm_matrix view(const Matrix &x)
{
    return {x.data(), (ptrdiff_t)x.stride(0), (ptrdiff_t)x.stride(1)};
}

// Windows [images, height, width, rows, columns, channels]. Channels of pixels that are neighbours are one run.
static ouigemm_windows windows_of(const Array &x)
{
    const bool joined = x.stride(4) == (int64_t)x.shape(5);
    ouigemm_windows w = {};
    w.height = x.shape(1);
    w.width = x.shape(2);
    w.columns = joined ? 1 : x.shape(4);
    w.run = joined ? x.shape(4) * x.shape(5) : x.shape(5);
    w.image_step = (ptrdiff_t)x.stride(0);
    w.line_step = (ptrdiff_t)x.stride(1);
    w.row_step = (ptrdiff_t)x.stride(3);
    w.column_step = joined ? 0 : (ptrdiff_t)x.stride(4);
    return w;
}

// A matrix, or windows, into the call; `windows` must outlive it.
static void set_a(ouigemm_call &call, const Array &a, ouigemm_windows &windows)
{
    if (a.ndim() == 2) {
        call.k = a.shape(1);
        call.a = {a.data(), (ptrdiff_t)a.stride(0), (ptrdiff_t)a.stride(1)};
        return;
    }
    windows = windows_of(a);
    call.windows = &windows;
    call.k = a.shape(3) * a.shape(4) * a.shape(5);
    call.a = {a.data(), (ptrdiff_t)a.stride(2), 1};
}

struct Packed {
    ouigemm_packed *packed = nullptr;

    Packed(int type, int rung, const Matrix &b)
    {
        ouigemm_matrix matrix = view(b);
        size_t k = b.shape(0), n = b.shape(1);
        Unlocked unlocked;
        raise(ouigemm_pack((ouigemm_type)type, rung, k, n, &matrix, &packed));
    }
    Packed(const Packed &) = delete;
    ~Packed() { ouigemm_packed_free(packed); }
};

static ouigemm_epilogue epilogue_of(int output, double alpha, double beta, const std::optional<Floats> &scale,
                                    const std::optional<Floats> &bias, bool relu, int zero_point)
{
    ouigemm_epilogue epilogue = {};
    epilogue.output = (ouigemm_output)output;
    epilogue.alpha = alpha;
    epilogue.beta = beta;
    epilogue.scale = scale ? scale->data() : nullptr;
    epilogue.scale_step = scale && scale->shape(0) > 1;
    epilogue.bias = bias ? bias->data() : nullptr;
    epilogue.relu = relu;
    epilogue.zero_point = zero_point;
    return epilogue;
}

static void gemm(int type, int rung, int threads, const Array &a, const std::optional<Matrix> &b,
                        const Packed *packed, Result &c, int output, double alpha, double beta,
                        const std::optional<Floats> &scale, const std::optional<Floats> &bias, bool relu,
                        int zero_point)
{
    ouigemm_call call = {};
    call.type = (ouigemm_type)type;
    call.rung = rung;
    call.threads = threads;
    call.m = c.shape(0);
    call.n = c.shape(1);
    ouigemm_windows windows;
    set_a(call, a, windows);
    if (packed)
        call.packed = packed->packed;
    else
        call.b = view(b.value());
    call.c = c.data();
    call.c_row = (ptrdiff_t)c.stride(0);
    call.c_col = (ptrdiff_t)c.stride(1);
    call.epilogue = epilogue_of(output, alpha, beta, scale, bias, relu, zero_point);
    Unlocked unlocked;
    raise(ouigemm_gemm(&call));
}

static void hamming(const nb::ndarray<const uint64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu> &bits,
                    nb::ndarray<int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu> &distances, int rung, int threads)
{
    Unlocked unlocked;
    raise(ouigemm_hamming(bits.data(), bits.shape(0), bits.shape(1), rung, threads, distances.data()));
}

static nb::list rungs()
{
    nb::list ladder;
    for (int rung = 0; rung < ouigemm_rung_count(); rung++) {
        nb::list families;
        for (int type = 0; type < OUIGEMM_TYPES; type++) {
            nb::list family;
            for (int i = 0; const char *name = ouigemm_rung_kernel(rung, (ouigemm_type)type, i); i++)
                family.append(name);
            families.append(family);
        }
        const char *absent = ouigemm_rung_absent(rung);
        ladder.append(nb::make_tuple(ouigemm_rung_name(rung), absent ? nb::cast(absent) : nb::none(), families));
    }
    return ladder;
}

static nb::dict cpu()
{
    nb::dict features;
    int present;
    for (int i = 0; const char *name = ouigemm_cpu_feature(i, &present); i++)
        features[name] = (bool)present;
    return features;
}

static nb::object name_or_none(const char *name)
{
    return name ? nb::cast(name) : nb::none();
}

static nb::tuple run_stream(int type, int rung, size_t rounds)
{
    const char *instruction = nullptr;
    double operations;
    {
        Unlocked unlocked;
        operations = ouigemm_run_stream((ouigemm_type)type, rung, rounds, &instruction);
    }
    return nb::make_tuple(name_or_none(instruction), operations);
}

static nb::tuple blocks(int type, int rung, size_t m, size_t n, size_t k, size_t l2)
{
    ouigemm_blocks b = ouigemm_block_sizes((ouigemm_type)type, rung, m, n, k, l2);
    return nb::make_tuple(b.mc, b.nc, b.kc);
}

NB_MODULE(_core, m)
{
    nb::set_leak_warnings(false); // a daemon thread inside a call at the end of the program holds what it uses
    nb::class_<Packed>(m, "Packed")
        .def(nb::init<int, int, const Matrix &>())
        .def_prop_ro("nbytes", [](const Packed &p) { return ouigemm_packed_bytes(p.packed); })
        .def("kernel", [](const Packed &p, size_t rows) { return ouigemm_packed_kernel(p.packed, rows); });
    m.def("gemm", &gemm, nb::arg("type"), nb::arg("rung"), nb::arg("threads"), nb::arg("a"), nb::arg("b").none(),
          nb::arg("packed").none(), nb::arg("c"), nb::arg("output"), nb::arg("alpha"), nb::arg("beta"),
          nb::arg("scale").none(), nb::arg("bias").none(), nb::arg("relu"), nb::arg("zero_point"));
    m.def("hamming", &hamming);
    m.def("environment", [](const char *name) { return name_or_none(std::getenv(name)); });
    m.def("rungs", &rungs);
    m.def("cpu", &cpu);
    m.def("kernel", [](int type, int rung, size_t rows, size_t columns) {
        return name_or_none(ouigemm_kernel_name((ouigemm_type)type, rung, rows, columns));
    });
    m.def("adds_pairs", [](int rung) { return ouigemm_adds_pairs(rung) != 0; });
    m.def("hamming_rung", [](int rung) { return name_or_none(ouigemm_hamming_rung(rung)); });
    m.def("run_stream", &run_stream);
    m.def("blocks", &blocks);
    m.def("cache_bytes", &ouigemm_cache_bytes);
    m.def("tiles_are_modelled", [] { return ouigemm_tiles_are_modelled() != 0; });
}
