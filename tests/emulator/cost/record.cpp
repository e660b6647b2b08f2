#include "cost/record.h"

#include <sstream>

namespace emulator {
namespace {

struct Total {
  double slots = 0, waves = 0, least = 0;
  uint64_t sectors = 0, first = 0, barriers = 0;
  uint64_t counts[kClasses] = {};
  double parts[kParts] = {}, units[kUnits] = {};
};

Total total_of(const std::vector<BlockCost>& blocks) {
  Total t;
  for (const BlockCost& b : blocks) {
    t.slots += b.slots, t.waves += b.shared_waves, t.least += b.shared_least;
    t.sectors += b.sectors, t.first += b.first_sectors, t.barriers += b.barriers;
    for (size_t c = 0; c < kClasses; ++c) t.counts[c] += b.counts[c];
    for (size_t u = 0; u < kUnits; ++u) t.units[u] += b.units[u];
    for (size_t p = 0; p < kParts; ++p) t.parts[p] += double{b.alone.parts[p]};
  }
  return t;
}

template <class T, size_t N>
void write_named(std::ostream& out, const char* what, const char* const (&names)[N],
                 const T (&values)[N]) {
  out << ", \"" << what << "\": {";
  for (size_t i = 0; i < N; ++i) out << (i ? ", " : "") << '"' << names[i] << "\": " << values[i];
  out << '}';
}

void write(std::ostream& out, const LaunchCost& l) {
  const Total t = total_of(l.run);
  out << "{\"kernel\": \"" << l.kernel << "\", \"blocks\": " << l.blocks
      << ", \"threads\": " << l.threads << ", \"shared\": " << l.shared
      << ", \"local\": " << l.local << ", \"registers\": " << l.code.registers
      << ", \"stack\": " << l.code.stack << ", \"code\": " << l.code.instructions
      << ", \"slots\": " << t.slots << ", \"shared_waves\": " << t.waves
      << ", \"shared_least\": " << t.least << ", \"sectors\": " << t.sectors
      << ", \"first_sectors\": " << t.first << ", \"barriers\": " << t.barriers;
  write_named(out, "counts", kClassNames, t.counts);
  write_named(out, "parts", kPartNames, t.parts);
  write_named(out, "units", kUnitNames, t.units);
  out << ", \"run\": [";
  for (size_t i = 0; i < l.run.size(); ++i)
    out << (i ? ", [" : "[") << l.run[i].alone.time << ", " << l.run[i].full << ", "
        << l.run[i].slots << ']';
  out << "]}";
}

}  // namespace

Recorder& recorder() {
  static Recorder one;
  return one;
}

std::string as_json(const std::vector<LaunchCost>& launches) {
  std::ostringstream out;
  out.precision(12);
  out << '[';
  for (size_t i = 0; i < launches.size(); ++i) {
    if (i > 0) out << ",\n";
    write(out, launches[i]);
  }
  out << ']';
  return out.str();
}

}  // namespace emulator
