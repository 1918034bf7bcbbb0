// A board as a library: bytes in and out of its serial line, the clock in C++.
//
// sim/builds/board.py builds it around what Verilator makes of a board's top. PRAP_DIVISOR is the
// number of cycles of a bit. Only what a board has is touched: the clock, the button, the line and
// the lamps.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <stdexcept>
#include <string>

#include "Vboard.h"
#include "verilated.h"

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

// Sends bytes bit by bit, and hears them as a UART does: in the middle of each bit.
class Line {
public:
    std::deque<uint8_t> waiting;

    bool level() {
        if (left_ == 0) {
            if (waiting.empty()) return true;
            // Start bit, eight bits, stop bit.
            bits_ = uint32_t(waiting.front()) << 1 | 1u << 9;
            waiting.pop_front();
            left_ = 10 * PRAP_DIVISOR;
        }
        const uint32_t number = (10 * PRAP_DIVISOR - left_) / PRAP_DIVISOR;
        --left_;
        return bits_ >> number & 1;
    }
    bool sending() const { return left_ != 0 || !waiting.empty(); }

    // True where a byte is whole; a stop bit that is low counts as an error of the line.
    bool hear(bool level, uint8_t& byte) {
        if (heard_ < 0) {
            if (level) return false;
            heard_ = 0;
            data_ = 0;
        }
        const int bit = heard_ / PRAP_DIVISOR, phase = heard_ % PRAP_DIVISOR;
        ++heard_;
        if (phase != PRAP_DIVISOR / 2) return false;
        if (bit >= 1 && bit <= 8) data_ |= uint32_t(level) << (bit - 1);
        if (bit != 9) return false;
        heard_ = -1;
        if (!level) ++broken;
        byte = uint8_t(data_);
        return level;
    }
    bool hearing() const { return heard_ >= 0; }
    uint64_t broken = 0;

private:
    uint32_t bits_ = 0, left_ = 0, data_ = 0;
    int heard_ = -1;
};

struct Board {
    VerilatedContext context;
    std::unique_ptr<Vboard> model;
    Line line;
    uint64_t cycle = 0;
    std::string error;
};

}  // namespace

#define API extern "C" __attribute__((visibility("default")))

API Board* board_new(int seed) {
    auto board = std::make_unique<Board>();
    board->context.randReset(2);
    board->context.randSeed(seed);
    board->model = std::make_unique<Vboard>(&board->context, "board");
    board->model->clk = 0;
    board->model->button = 0;
    board->model->rx = 1;
    board->model->eval();
    return board.release();
}

API void board_free(Board* board) {
    if (board) board->model->final();
    delete board;
}

API const char* board_error(Board* board) { return board->error.c_str(); }

// Bytes for the board, sent in the cycles to come.
API void board_send(Board* board, const uint8_t* data, uint64_t count) {
    board->line.waiting.insert(board->line.waiting.end(), data, data + count);
}

API void board_press(Board* board, int down) { board->model->button = down != 0; }

// Runs so many cycles, or until `enough` bytes have come. Returns the bytes that came, or -1.
API int64_t board_run(Board* board, uint64_t cycles, uint8_t* out, uint64_t enough) {
    uint64_t found = 0;
    Vboard& model = *board->model;
    try {
        for (uint64_t last = board->cycle + cycles; board->cycle < last && found < enough;) {
            model.rx = board->line.level();
            model.clk = 1;
            model.eval();
            model.clk = 0;
            model.eval();
            ++board->cycle;
            uint8_t byte;
            if (board->line.hear(model.tx, byte)) out[found++] = byte;
        }
    } catch (const std::exception& problem) {
        board->error = problem.what();
        return -1;
    }
    return int64_t(found);
}

// Cycles so far; lamps; whether the line is busy either way; bytes with a wrong stop bit.
API void board_figures(Board* board, uint64_t* figures) {
    figures[0] = board->cycle;
    figures[1] = board->model->leds;
    figures[2] = board->line.sending() || board->line.hearing();
    figures[3] = board->line.broken;
}
