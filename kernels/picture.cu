// Decoded pictures in device memory → network inputs, in one pass: colour, orientation, crop,
// scale, normalisation.
//
// Colour follows what swscale makes of 4:2:0 with the settings of src/media/convert.rs: odd luma
// rows take their own chroma row, even ones and the last one the mean of it and the one above (its
// short cut for interpolation by 3:1; of pictures with an even number of rows); along a row, chroma
// is repeated; R, G and B are rounded to 8 bits. swscale truncates twice instead, and is darker for
// it by one to two levels in limited range. Scaling follows src/face/resample.rs: per axis, area
// averaging when shrinking, linear interpolation between pixel centres when enlarging; nothing
// outside the rectangle is looked at, places outside the picture repeat its edge, and the result is
// rounded to 8 bits before it is normalised.
#include "common.cuh"

// As src/nn/gpu/picture.rs lays it out. Sizes are those of the stored picture, before `orientation`.
struct Surface {
    unsigned long long plane[3]; // device addresses; NV12: luma and chroma pairs; RGB: one
    int pitch[3];                // bytes from row to row
    int width, height;
    int layout;
    int orientation;             // bits: 1 columns and rows exchanged, then 2 mirrored in x, 4 in y
    float luma_offset, luma_scale, red_v, green_u, green_v, blue_u;
    int reserved;
};

enum SurfaceLayout : int { LAYOUT_RGB = 0, LAYOUT_NV12 = 1, LAYOUT_YUV420 = 2 };

// A rectangle of the upright picture.
struct Crop {
    float x0, y0, x1, y1;
    int surface;
};

// Where a target pixel lies in the upright picture: x = m[0] u + m[1] v + m[2], y likewise from
// m[3]; u and v are the centres of target pixels, 0.5 and so on.
struct Affine {
    float m[6];
    int surface;
    int samples_x, samples_y; // averaged in a target pixel
};

struct Target {
    int width, height;               // of the scaled picture
    int canvas_width, canvas_height; // of the network's input
    int left, top;                   // where the picture lies in it; the rest is black
    float scale[3], shift[3];        // value = byte * scale + shift, for R, G, B
    int bgr;                         // blue first
    int planar;                      // [n, 3, h, w] instead of [n, h, w, 3]
    int first;                       // number of the first crop
};

namespace {
struct Colour {
    float r, g, b;
};

__device__ __forceinline__ int clamp_int(int x, int least, int greatest) {
    return x < least ? least : (x > greatest ? greatest : x);
}

// To a whole number in 0..=255.
__device__ __forceinline__ float to_byte(float x) {
    x = floorf(x + 0.5f);
    return x < 0.0f ? 0.0f : (x > 255.0f ? 255.0f : x);
}

__device__ __forceinline__ const unsigned char* row_of(const Surface& s, int plane, int y) {
    return reinterpret_cast<const unsigned char*>(s.plane[plane]) +
           static_cast<long long>(y) * s.pitch[plane];
}

__device__ __forceinline__ int upright_width(const Surface& s) {
    return s.orientation & 1 ? s.height : s.width;
}

__device__ __forceinline__ int upright_height(const Surface& s) {
    return s.orientation & 1 ? s.width : s.height;
}

// The pixel at a place inside the upright picture.
__device__ __forceinline__ Colour pixel(const Surface& s, int x, int y) {
    const int ux = s.orientation & 2 ? upright_width(s) - 1 - x : x;
    const int uy = s.orientation & 4 ? upright_height(s) - 1 - y : y;
    const int column = s.orientation & 1 ? uy : ux, row = s.orientation & 1 ? ux : uy;
    if (s.layout == LAYOUT_RGB) {
        const unsigned char* p = row_of(s, 0, row) + static_cast<long long>(column) * 3;
        return {static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2])};
    }
    const int near = row / 2;
    const int above = (row % 2 == 0 || row == s.height - 1) && near > 0 ? near - 1 : near;
    float u, v;
    if (s.layout == LAYOUT_NV12) {
        const unsigned char* a = row_of(s, 1, near) + column / 2 * 2;
        const unsigned char* b = row_of(s, 1, above) + column / 2 * 2;
        u = 0.5f * a[0] + 0.5f * b[0];
        v = 0.5f * a[1] + 0.5f * b[1];
    } else {
        u = 0.5f * row_of(s, 1, near)[column / 2] + 0.5f * row_of(s, 1, above)[column / 2];
        v = 0.5f * row_of(s, 2, near)[column / 2] + 0.5f * row_of(s, 2, above)[column / 2];
    }
    u -= 128.0f;
    v -= 128.0f;
    const float luma = (row_of(s, 0, row)[column] - s.luma_offset) * s.luma_scale;
    return {to_byte(luma + s.red_v * v), to_byte(luma + s.green_u * u + s.green_v * v),
            to_byte(luma + s.blue_u * u)};
}

// What one target pixel reads along one axis, as `Axis` of resample.rs.
struct Span {
    int first, count;
    bool shrinks;
    float from, to, scale, sum;
    int least, greatest; // inside the rectangle and the picture

    __device__ __forceinline__ float raw(int k) const {
        const float p = static_cast<float>(first) + static_cast<float>(k);
        const float w = (fminf(to, p + 1.0f) - fmaxf(from, p)) / scale;
        return w < 0.0f ? 0.0f : w;
    }
    __device__ __forceinline__ float weight(int k) const {
        // When enlarging, `from` is the second pixel's weight.
        return shrinks ? raw(k) / sum : (k == 0 ? 1.0f - from : from);
    }
    __device__ __forceinline__ int at(int k) const {
        return clamp_int(first + k, least, greatest);
    }
};

__device__ __forceinline__ Span span(float from, float to, int target, int i, int length) {
    Span s;
    const int inside_first = static_cast<int>(floorf(from));
    const int inside_last = static_cast<int>(ceilf(to)) - 1;
    to = fmaxf(to, from + 1e-3f);
    s.least = clamp_int(inside_first, 0, length - 1);
    s.greatest = clamp_int(inside_last > inside_first ? inside_last : inside_first, 0, length - 1);
    s.scale = (to - from) / static_cast<float>(target);
    s.shrinks = s.scale > 1.0f;
    if (s.shrinks) {
        s.from = from + static_cast<float>(i) * s.scale;
        s.to = s.from + s.scale;
        const float start = floorf(s.from), end = fmaxf(floorf(s.to - 1e-4f), start);
        s.first = static_cast<int>(start);
        s.count = static_cast<int>(end - start) + 1;
        s.sum = 0.0f;
        for (int k = 0; k < s.count; ++k) {
            s.sum += s.raw(k);
        }
    } else {
        const float centre = from + (static_cast<float>(i) + 0.5f) * s.scale - 0.5f;
        const float start = floorf(centre);
        s.first = static_cast<int>(start);
        s.count = 2;
        s.from = centre - start;
        s.to = 0.0f;
        s.sum = 1.0f;
    }
    return s;
}

// Also the black around the picture; values are 0..255.
__device__ __forceinline__ void write(float* out, const Target& t, long long n, int x, int y,
                                      Colour c) {
    const float v[3] = {c.r * t.scale[0] + t.shift[0], c.g * t.scale[1] + t.shift[1],
                        c.b * t.scale[2] + t.shift[2]};
    const long long place = static_cast<long long>(y) * t.canvas_width + x;
    const long long plane = static_cast<long long>(t.canvas_width) * t.canvas_height;
    for (int i = 0; i < 3; ++i) {
        const float value = v[t.bgr ? 2 - i : i];
        if (t.planar) {
            out[(n * 3 + i) * plane + place] = value;
        } else {
            out[(n * plane + place) * 3 + i] = value;
        }
    }
}

// Bilinear between pixel centres, edges repeated.
__device__ __forceinline__ Colour between(const Surface& s, float x, float y) {
    const int w = upright_width(s), h = upright_height(s);
    x = fminf(fmaxf(x - 0.5f, 0.0f), static_cast<float>(w - 1));
    y = fminf(fmaxf(y - 0.5f, 0.0f), static_cast<float>(h - 1));
    const int x0 = static_cast<int>(x), y0 = static_cast<int>(y);
    const int x1 = x0 + 1 < w ? x0 + 1 : x0, y1 = y0 + 1 < h ? y0 + 1 : y0;
    const float tx = x - static_cast<float>(x0), ty = y - static_cast<float>(y0);
    const Colour a = pixel(s, x0, y0), b = pixel(s, x1, y0);
    const Colour c = pixel(s, x0, y1), d = pixel(s, x1, y1);
    const float wa = (1.0f - tx) * (1.0f - ty), wb = tx * (1.0f - ty);
    const float wc = (1.0f - tx) * ty, wd = tx * ty;
    return {wa * a.r + wb * b.r + wc * c.r + wd * d.r, wa * a.g + wb * b.g + wc * c.g + wd * d.g,
            wa * a.b + wb * b.b + wc * c.b + wd * d.b};
}
} // namespace

// One thread a pixel of the canvas, one layer of the grid a crop.
extern "C" __global__ void __launch_bounds__(256)
    picture_crop(const Surface* surfaces, const Crop* crops, float* out, Target t) {
    const int x = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    const int y = static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y);
    if (x >= t.canvas_width || y >= t.canvas_height) {
        return;
    }
    const long long n = static_cast<long long>(t.first) + blockIdx.z;
    const int u = x - t.left, v = y - t.top;
    if (u < 0 || v < 0 || u >= t.width || v >= t.height) {
        write(out, t, n, x, y, {0.0f, 0.0f, 0.0f});
        return;
    }
    const Crop crop = crops[n];
    const Surface s = surfaces[crop.surface];
    const Span columns = span(crop.x0, crop.x1, t.width, u, upright_width(s));
    const Span rows = span(crop.y0, crop.y1, t.height, v, upright_height(s));
    Colour sum = {0.0f, 0.0f, 0.0f};
    for (int j = 0; j < rows.count; ++j) {
        const int row = rows.at(j);
        Colour line = {0.0f, 0.0f, 0.0f};
        for (int i = 0; i < columns.count; ++i) {
            const Colour c = pixel(s, columns.at(i), row);
            const float w = columns.weight(i);
            line.r += w * c.r;
            line.g += w * c.g;
            line.b += w * c.b;
        }
        const float w = rows.weight(j);
        sum.r += w * line.r;
        sum.g += w * line.g;
        sum.b += w * line.b;
    }
    write(out, t, n, x, y, {to_byte(sum.r), to_byte(sum.g), to_byte(sum.b)});
}

// The mean of samples_x by samples_y bilinear samples spread evenly over the target pixel: one
// where the map enlarges.
extern "C" __global__ void __launch_bounds__(256)
    picture_affine(const Surface* surfaces, const Affine* maps, float* out, Target t) {
    const int x = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    const int y = static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y);
    if (x >= t.canvas_width || y >= t.canvas_height) {
        return;
    }
    const long long n = static_cast<long long>(t.first) + blockIdx.z;
    const int u = x - t.left, v = y - t.top;
    if (u < 0 || v < 0 || u >= t.width || v >= t.height) {
        write(out, t, n, x, y, {0.0f, 0.0f, 0.0f});
        return;
    }
    const Affine a = maps[n];
    const Surface s = surfaces[a.surface];
    const float step_x = 1.0f / static_cast<float>(a.samples_x);
    const float step_y = 1.0f / static_cast<float>(a.samples_y);
    Colour sum = {0.0f, 0.0f, 0.0f};
    for (int j = 0; j < a.samples_y; ++j) {
        const float q = static_cast<float>(v) + (static_cast<float>(j) + 0.5f) * step_y;
        for (int i = 0; i < a.samples_x; ++i) {
            const float p = static_cast<float>(u) + (static_cast<float>(i) + 0.5f) * step_x;
            const Colour c = between(s, a.m[0] * p + a.m[1] * q + a.m[2],
                                     a.m[3] * p + a.m[4] * q + a.m[5]);
            sum.r += c.r;
            sum.g += c.g;
            sum.b += c.b;
        }
    }
    const float share = step_x * step_y;
    write(out, t, n, x, y, {to_byte(sum.r * share), to_byte(sum.g * share), to_byte(sum.b * share)});
}
