// The engine as a library: whole arrays in and out, the clock in C++.
//
// sim/builds/verilator.py builds it around what Verilator makes of bulk.sv; sim/builds/library.py
// calls it through ctypes. Ports alone are driven and read, as in a bench: program words, cells and
// activations go in through their streams, and what crosses a port that is compared is recorded.
//
// Calls return a Status. After ERROR, prap_error has the text, and the handle is good for nothing but
// prap_free. Nothing here ends the process: what Verilator would abort for is an ERROR.
//
// From the build: PRAP_PSUMS, the partial sums that the trace port shows at once, and PRAP_COUNTERS,
// the names of the counters in order, each as PRAP_COUNTER(name).

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include "Vbulk.h"
#include "Vbulk___024root.h"
#include "verilated.h"

// Verilator's function that evaluates the model once, without what its class does around that for
// threads and messages, of which this model has none: a sixth of the time.
void Vbulk___024root___eval(Vbulk___024root* self);

// Verilator calls these where it would end the process.
void vl_fatal(const char*, int, const char* scope, const char* message) {
    throw std::runtime_error(std::string(scope ? scope : "") + ": " + (message ? message : ""));
}
void vl_stop(const char*, int, const char* scope) {
    throw std::runtime_error(std::string(scope ? scope : "") + ": an assertion fails");
}
void vl_finish(const char*, int, const char* scope) {
    throw std::runtime_error(std::string(scope ? scope : "") + ": finished by itself");
}

namespace {

enum Status : int { ERROR = -1, DONE = 0, MORE = 1, FULL = 2 };

// In the order of KINDS in sim/results.py.
enum Kind : int { REQUESTS, CODES, PSUMS, ACCUMULATORS, OUTPUTS, KINDS };

// Cycles in which a loading stream may be not ready before that is an error.
constexpr uint64_t PATIENCE = 1000;

// Payloads pass as 64-bit words, lowest first, as many as hold the port.
template <typename T>
constexpr std::size_t words_of(const T&) {
    return 1;
}
template <std::size_t N>
constexpr std::size_t words_of(const VlWide<N>&) {
    return (N + 1) / 2;
}

template <typename T>
inline void get(const T& port, uint64_t* words) {
    words[0] = port;
}
template <std::size_t N>
inline void get(const VlWide<N>& port, uint64_t* words) {
    for (std::size_t w = 0; w < (N + 1) / 2; ++w)
        words[w] = port.at(2 * w) | (2 * w + 1 < N ? uint64_t(port.at(2 * w + 1)) << 32 : 0);
}

template <typename T>
inline void put(T& port, const uint64_t* words) {
    port = static_cast<T>(words[0]);
}
template <std::size_t N>
inline void put(VlWide<N>& port, const uint64_t* words) {
    for (std::size_t i = 0; i < N; ++i)
        port.at(i) = static_cast<EData>(i % 2 ? words[i / 2] >> 32 : words[i / 2]);
}

// One of several payloads of `width` bits, at most 64, side by side in a port.
template <typename T>
inline uint64_t lane_of(const T& port, std::size_t lane, std::size_t width) {
    return uint64_t(port) >> lane * width & (~uint64_t(0) >> (64 - width));
}
template <std::size_t N>
inline uint64_t lane_of(const VlWide<N>& port, std::size_t lane, std::size_t width) {
    uint64_t value = 0;
    for (std::size_t bit = 0; bit < width; ++bit) {
        const std::size_t at = lane * width + bit;
        value |= uint64_t(port.at(at / 32) >> at % 32 & 1) << bit;
    }
    return value;
}

// Words of one kind, `each` to a record.
struct Records {
    uint64_t* words = nullptr;
    uint64_t capacity = 0;
    uint64_t count = 0;
    uint64_t each = 1;

    uint64_t* next() { return words + each * count++; }
    bool has_room(uint64_t more) const { return count + more <= capacity; }
};

}  // namespace

struct PrapEngine {
    VerilatedContext context;
    std::unique_ptr<Vbulk> top;
    std::string error;
    Records records[KINDS];
    uint64_t quiet = 0;         // cycles to go on after a run has ended
    uint64_t quiet_left = 0;    // of the present run
    uint64_t cycle = 0;         // since the beginning
    uint64_t start_cycle = 0;   // in which the last start was accepted
    uint64_t output_cycle = 0;  // in which the last output was accepted

    // One clock cycle. Outputs depend on no input within a cycle, so they need no evaluation of
    // their own before the edge.
    void tick() {
        top->clk = 1;
        Vbulk___024root___eval(top->rootp);
        top->clk = 0;
        Vbulk___024root___eval(top->rootp);
        ++cycle;
    }
};

namespace {

template <typename Call>
int guarded(PrapEngine* engine, Call call) {
    try {
        return call();
    } catch (const std::exception& problem) {
        engine->error = problem.what();
    }
    return ERROR;
}

// Send items through a loading stream; `set` puts item i on the payload.
template <typename Valid, typename Ready, typename Set>
int send(PrapEngine* engine, const char* name, Valid& valid, const Ready& ready, uint64_t items,
         Set set) {
    return guarded(engine, [&] {
        valid = 1;
        for (uint64_t i = 0; i < items; ++i) {
            set(i);
            for (uint64_t waited = 0; !ready; ++waited) {
                if (waited == PATIENCE)
                    throw std::runtime_error(std::string(name) + " is not ready to load");
                engine->tick();
            }
            engine->tick();
        }
        valid = 0;
        engine->tick();  // the last item leaves the register before the engine's port
        return DONE;
    });
}

template <bool EVERY>
int run(PrapEngine* engine, uint64_t cycles) {
    Vbulk& top = *engine->top;
    Records* records = engine->records;
    for (uint64_t i = 0; i < cycles; ++i) {
        if (!top.busy && engine->quiet_left-- == 0) return DONE;
        if (!records[ACCUMULATORS].has_room(1) || !records[OUTPUTS].has_room(1)) return FULL;
        if (EVERY) {
            if (!records[REQUESTS].has_room(1) || !records[CODES].has_room(1)) return FULL;
            if (!records[PSUMS].has_room(PRAP_PSUMS)) return FULL;
            if (top.request_valid) get(top.request, records[REQUESTS].next());
            if (top.codes_valid) get(top.codes, records[CODES].next());
            if (top.psum_valid) {
                for (std::size_t lane = 0; lane < PRAP_PSUMS; ++lane)
                    if (top.psum_valid >> lane & 1)
                        *records[PSUMS].next() = lane_of(top.psum, lane, PRAP_PSUM);
            }
        }
        if (top.acc_valid) get(top.acc, records[ACCUMULATORS].next());
        if (top.out_valid) {
            get(top.out, records[OUTPUTS].next());
            engine->output_cycle = engine->cycle;
        }
        engine->tick();
    }
    return MORE;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// An engine with the registers as the Verilog initialises them and memories filled at random by
// `seed`. A run goes on for `quiet` cycles after its end, in which more would be recorded. Null where
// there is no memory for it.
EXPORT PrapEngine* prap_new(int seed, uint64_t quiet) {
    try {
        auto engine = std::make_unique<PrapEngine>();
        engine->quiet = quiet;
        engine->context.randReset(2);
        engine->context.randSeed(seed);
        engine->top = std::make_unique<Vbulk>(&engine->context, "engine");
        Vbulk& top = *engine->top;
        top.clk = 0;
        top.start = 0;
        top.load_valid = 0;
        top.cells_valid = 0;
        top.acts_valid = 0;
        top.eval();  // this once by the class, which initialises the model
        return engine.release();
    } catch (const std::exception&) {
        return nullptr;
    }
}

EXPORT void prap_free(PrapEngine* engine) { delete engine; }

EXPORT const char* prap_error(const PrapEngine* engine) { return engine->error.c_str(); }

// 64-bit words of a program word, of a row of cells, and of a record of each kind.
EXPORT void prap_words(const PrapEngine* engine, uint64_t* words) {
    const Vbulk& top = *engine->top;
    const std::size_t sizes[] = {words_of(top.load), words_of(top.cells), words_of(top.request),
                                 words_of(top.codes), 1, words_of(top.acc), words_of(top.out)};
    for (std::size_t size : sizes) *words++ = size;
}

EXPORT int prap_load(PrapEngine* engine, const uint64_t* words, uint64_t items) {
    Vbulk& top = *engine->top;
    return send(engine, "i_load", top.load_valid, top.load_ready, items,
                [&](uint64_t i) { put(top.load, words + i * words_of(top.load)); });
}

EXPORT int prap_cells(PrapEngine* engine, const uint64_t* words, uint64_t items) {
    Vbulk& top = *engine->top;
    return send(engine, "i_cells", top.cells_valid, top.cells_ready, items,
                [&](uint64_t i) { put(top.cells, words + i * words_of(top.cells)); });
}

EXPORT int prap_acts(PrapEngine* engine, const uint8_t* bytes, uint64_t items) {
    Vbulk& top = *engine->top;
    return send(engine, "i_acts", top.acts_valid, top.acts_ready, items, [&](uint64_t i) {
        top.acts = static_cast<SData>(bytes[i] | (i + 1 == items) << 8);
    });
}

// Where records of a kind go from now on, and how many have come since.
EXPORT void prap_record(PrapEngine* engine, int kind, uint64_t* words, uint64_t capacity,
                        uint64_t each) {
    engine->records[kind] = {words, capacity, 0, each};
}
EXPORT uint64_t prap_recorded(const PrapEngine* engine, int kind) {
    return engine->records[kind].count;
}

EXPORT int prap_start(PrapEngine* engine) {
    return guarded(engine, [&] {
        Vbulk& top = *engine->top;
        engine->quiet_left = engine->quiet;
        top.start = 1;
        engine->tick();
        top.start = 0;
        if (!top.started) throw std::runtime_error("a start was not accepted");
        engine->start_cycle = engine->cycle;
        engine->output_cycle = engine->cycle;
        return DONE;
    });
}

// Run on for so many cycles at most. DONE: not busy, and the quiet cycles after that have passed;
// MORE: not yet; FULL: not yet, and records must be taken to another place first.
EXPORT int prap_run(PrapEngine* engine, uint64_t cycles, int every) {
    return guarded(engine,
                   [&] { return every ? run<true>(engine, cycles) : run<false>(engine, cycles); });
}

// Whether it runs; cycles since the beginning, of the last start, of the last output; the counters.
EXPORT void prap_figures(const PrapEngine* engine, uint64_t* figures) {
    const Vbulk& top = *engine->top;
    *figures++ = top.busy;
    *figures++ = engine->cycle;
    *figures++ = engine->start_cycle;
    *figures++ = engine->output_cycle;
#define PRAP_COUNTER(name) *figures++ = top.counter_##name;
    PRAP_COUNTERS
#undef PRAP_COUNTER
}
