// The Python module of the simulator: the schedule, and what every room registered.
#include "sim_module.h"

static void set_schedule(const std::string& name, uint64_t seed) {
  if (name != "forward" && name != "reverse" && name != "random")
    throw std::invalid_argument("schedule: forward, reverse or random");
  cusim::set_schedule(name == "forward"   ? cusim::Schedule::forward
                      : name == "reverse" ? cusim::Schedule::reverse
                                          : cusim::Schedule::random,
                      seed);
}

PYBIND11_MODULE(kdops_sim, m) {
  m.def("set_schedule", &set_schedule, py::arg("name"), py::arg("seed") = 1);
  for (const auto function : SimRegistration::all()) function(m);
}
