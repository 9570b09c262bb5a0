// Options of a leaf: declared once, beside the code that uses them; the configuration schema, `argus explain` and the
// manual are derived from these descriptors.
#pragma once

#include <span>

namespace argus {

struct Option {
    const char* name;  // unit last: "half_life_s"
    const char* unit;  // UCUM, "1" for a plain number
    double value;      // default
    double min;
    double max;
    const char* documentation;
};

// What every catalogue entry but a source says of itself.
struct Leaf {
    const char* name;
    const char* documentation;  // one sentence
    const char* reference;      // paper, standard or kernel document the method comes from
    std::span<const Option> options;
};

}  // namespace argus
