// What sweeps.py and graph.py do, for a GPU: the operator div(D grad c) of conductance.py, and what a solve does with it.
//
// `real` is the type of fields, `value` that of what voxels conduct: bytes that are 0 or 1 where WHOLE is defined.
// Only the latter have ghosts. `around` has bit a set if axis a is periodic; beyond an axis that is not, no face
// conducts, so that what is read for its field is of no account. A thread goes along the second axis over ROWS voxels,
// and sums are of one thread each: what adds them up is told where they lie, (segment, layer, column).

// What a thread has: its third index and its first, and where along the second it begins.
#define COLUMN(n0, n2) \
    int k = blockIdx.x * blockDim.x + threadIdx.x, h = blockIdx.y * blockDim.y + threadIdx.y, first = blockIdx.z * ROWS; \
    if (k >= n2 || h >= n0) \
        return;

static __device__ real conductance(value a, value b)
{
#ifdef WHOLE
    return (real)(a * b);
#else
    return (a * b + a * b) / (a + b + LEAST);
#endif
}

static __device__ size_t place(int h, int j, int k, int n1, int n2)
{
    return ((size_t)h * n1 + j) * n2 + k;
}

// The index of a voxel's neighbour along an axis.
static __device__ int beside(int i, int n, int periodic)
{
    if (i < 0)
        return periodic ? n - 1 : 0;
    if (i >= n)
        return periodic ? 0 : n - 1;
    return i;
}

// What a voxel's six faces conduct but for the factors of the axes: below and above along each.
static __device__ void faces(real* w, const value* values, int n1, int n2, int h, int j, int k)
{
    size_t row = n2 + 2, layer = (size_t)(n1 + 2) * row;
    const value* m = values + place(h + 1, j + 1, k + 1, n1 + 2, n2 + 2);
    w[0] = conductance(*m, *(m - layer));
    w[1] = conductance(*m, m[layer]);
    w[2] = conductance(*m, *(m - row));
    w[3] = conductance(*m, m[row]);
    w[4] = conductance(*m, *(m - 1));
    w[5] = conductance(*m, m[1]);
}

// A field at a voxel's six neighbours.
static __device__ void neighbours(real* u, const real* v, int n0, int n1, int n2, int around, int h, int j, int k)
{
    u[0] = v[place(beside(h - 1, n0, around & 1), j, k, n1, n2)];
    u[1] = v[place(beside(h + 1, n0, around & 1), j, k, n1, n2)];
    u[2] = v[place(h, beside(j - 1, n1, around & 2), k, n1, n2)];
    u[3] = v[place(h, beside(j + 1, n1, around & 2), k, n1, n2)];
    u[4] = v[place(h, j, beside(k - 1, n2, around & 4), n1, n2)];
    u[5] = v[place(h, j, beside(k + 1, n2, around & 4), n1, n2)];
}

// What a voxel of the first or the last layer conducts to the ends.
static __device__ real to_ends(const real* ends, int n0, int n1, int n2, int h, int j, int k)
{
    return (h == 0 ? ends[place(0, j, k, n1, n2)] : 0) + (h == n0 - 1 ? ends[place(1, j, k, n1, n2)] : 0);
}

// A v at a voxel; its weights in all are put in `diagonal`.
static __device__ real flow(
    real* diagonal, const real* v, const value* values, const real* ends, real c0, real c1, real c2, int n0, int n1,
    int n2, int around, int h, int j, int k)
{
    real w[6], u[6], c[3] = {c0, c1, c2}, o = v[place(h, j, k, n1, n2)], end = to_ends(ends, n0, n1, n2, h, j, k);
    real sum = end * o;
    faces(w, values, n1, n2, h, j, k);
    neighbours(u, v, n0, n1, n2, around, h, j, k);
    *diagonal = end;
    for (int a = 0; a < 3; ++a) {
        *diagonal += c[a] * (w[2 * a] + w[2 * a + 1]);
        sum += c[a] * (w[2 * a] * (o - u[2 * a]) + w[2 * a + 1] * (o - u[2 * a + 1]));
    }
    return sum;
}

static __device__ real smoothed(real omega, real r, real diagonal)
{
    return omega * r / (diagonal + TINY);
}

// r -= alpha A p; z = omega r / diagonal; sums of r^2.
extern "C" __global__ void residual(
    real alpha, real omega, const real* p, real* r, real* z, double* sums, const value* values, const real* ends, real c0,
    real c1, real c2, int n0, int n1, int n2, int around) {
    COLUMN(n0, n2)
    double total = 0;
    for (int j = first; j < n1 && j < first + ROWS; ++j) {
        size_t i = place(h, j, k, n1, n2);
        real diagonal, left = r[i] - alpha * flow(&diagonal, p, values, ends, c0, c1, c2, n0, n1, n2, around, h, j, k);
        r[i] = left;
        z[i] = smoothed(omega, left, diagonal);
        total += (double)left * left;
    }
    sums[place(blockIdx.z, h, k, n0, n2)] = total;
}

// The nodes of a block have what smoothing leaves, r - A z, of their voxels; a thread has a block.
extern "C" __global__ void gather(
    const real* r, const real* z, const unsigned char* piece, const int* base, int s0, int s1, int s2, real* target,
    const value* values, const real* ends, real c0, real c1, real c2, int n0, int n1, int n2, int around) {
    int m0 = (n0 + s0) >> s0, m1 = (n1 + s1) >> s1, m2 = (n2 + s2) >> s2;
    int b2 = blockIdx.x * blockDim.x + threadIdx.x, b0 = blockIdx.y * blockDim.y + threadIdx.y, first = blockIdx.z * ROWS;
    if (b2 >= m2 || b0 >= m0)
        return;
    for (int b1 = first; b1 < m1 && b1 < first + ROWS; ++b1) {
        real* mine = target + base[place(b0, b1, b2, m1, m2)];
        for (int h = b0 << s0; h < n0 && h < (b0 + 1) << s0; ++h)
        for (int j = b1 << s1; j < n1 && j < (b1 + 1) << s1; ++j)
        for (int k = b2 << s2; k < n2 && k < (b2 + 1) << s2; ++k) {
            size_t i = place(h, j, k, n1, n2);
            real diagonal;
            if (piece[i] != NONE)
                mine[piece[i]] += r[i] - flow(&diagonal, z, values, ends, c0, c1, c2, n0, n1, n2, around, h, j, k);
        }
    }
}

// z += P e, of voxels and their nodes.
extern "C" __global__ void prolong(
    const real* e, real* z, const unsigned char* piece, const int* base, int s0, int s1, int s2, int n0, int n1, int n2) {
    COLUMN(n0, n2)
    for (int j = first; j < n1 && j < first + ROWS; ++j) {
        size_t i = place(h, j, k, n1, n2);
        if (piece[i] != NONE)
            z[i] += e[base[place(h >> s0, j >> s1, k >> s2, (n1 + s1) >> s1, (n2 + s2) >> s2)] + piece[i]];
    }
}

// out = z + omega (r - A z) / diagonal; sums of r out.
extern "C" __global__ void correction(
    real omega, const real* r, const real* z, real* out, double* sums, const value* values, const real* ends, real c0,
    real c1, real c2, int n0, int n1, int n2, int around) {
    COLUMN(n0, n2)
    double total = 0;
    for (int j = first; j < n1 && j < first + ROWS; ++j) {
        size_t i = place(h, j, k, n1, n2);
        real diagonal, left = r[i] - flow(&diagonal, z, values, ends, c0, c1, c2, n0, n1, n2, around, h, j, k);
        real made = z[i] + smoothed(omega, left, diagonal);
        out[i] = made;
        total += (double)r[i] * made;
    }
    sums[place(blockIdx.z, h, k, n0, n2)] = total;
}

// x += alpha p; p = z + beta p.
extern "C" __global__ void direction(
    real alpha, real beta, real* x, const real* z, real* p, int n0, int n1, int n2) {
    COLUMN(n0, n2)
    for (int j = first; j < n1 && j < first + ROWS; ++j) {
        size_t i = place(h, j, k, n1, n2);
        real old = p[i];
        x[i] += alpha * old;
        p[i] = z[i] + beta * old;
    }
}

// Sums of w (difference of p)^2, over the faces above each voxel along each axis, and those to the ends.
extern "C" __global__ void curvature(
    const real* p, double* sums, const value* values, const real* ends, real c0, real c1, real c2, int n0, int n1, int n2,
    int around) {
    COLUMN(n0, n2)
    double total = 0;
    for (int j = first; j < n1 && j < first + ROWS; ++j) {
        real w[6], u[6], c[3] = {c0, c1, c2}, o = p[place(h, j, k, n1, n2)];
        faces(w, values, n1, n2, h, j, k);
        neighbours(u, p, n0, n1, n2, around, h, j, k);
        for (int a = 0; a < 3; ++a) {
            real d = u[2 * a + 1] - o;
            total += (double)(c[a] * w[2 * a + 1] * d * d);
        }
        total += (double)to_ends(ends, n0, n1, n2, h, j, k) * o * o;
    }
    sums[place(blockIdx.z, h, k, n0, n2)] = total;
}

// r = b - A x from differences in double precision; see true_residual_sweep. Three arrays of sums, one after the other:
// flux and w (difference)^2 of the faces above each layer, and the latter of those within; two more of the first end.
extern "C" __global__ void true_residual(
    const real* x, real* r, double held0, double held1, double jump0, double jump1, double jump2, double* sums,
    double* entered, const value* values, const real* ends, real c0, real c1, real c2, int n0, int n1, int n2, int around) {
    COLUMN(n0, n2)
    size_t each = place(gridDim.z, 0, 0, n0, n2);
    double flux = 0, between = 0, within = 0, in = 0, work = 0, c[3] = {c0, c1, c2}, jump[3] = {jump0, jump1, jump2};
    for (int j = first; j < n1 && j < first + ROWS; ++j) {
        real w[6], u[6];
        double v = x[place(h, j, k, n1, n2)], s = 0, gained[3], carried = 0;
        faces(w, values, n1, n2, h, j, k);
        neighbours(u, x, n0, n1, n2, around, h, j, k);
        for (int a = 0; a < 3; ++a) {
            double up = u[2 * a + 1] - v + jump[a], down = u[2 * a] - v - jump[a], wide = c[a] * w[2 * a + 1];
            if (a == 0)
                carried = wide * up;
            gained[a] = wide * up * up;
            s += wide * up + c[a] * w[2 * a] * down;
        }
        flux += carried;
        between += gained[0];
        within += gained[1] + gained[2];
        if (h == 0) {
            double w = ends[place(0, j, k, n1, n2)], d = held0 - v;
            s += w * d;
            work += w * d * d;
            in -= w * d;
        }
        if (h == n0 - 1) {
            double w = ends[place(1, j, k, n1, n2)], d = held1 - v;
            s += w * d;
            between += w * d * d;
            flux += w * d;
        }
        r[place(h, j, k, n1, n2)] = s;
    }
    size_t i = place(blockIdx.z, h, k, n0, n2);
    sums[i] = flux;
    sums[each + i] = between;
    sums[2 * each + i] = within;
    if (h == 0) {
        entered[place(0, blockIdx.z, k, gridDim.z, n2)] = in;
        entered[place(1, blockIdx.z, k, gridDim.z, n2)] = work;
    }
}

// The field is NaN where nothing conducts.
extern "C" __global__ void mask(real* x, const value* values, int n0, int n1, int n2) {
    COLUMN(n0, n2)
    for (int j = first; j < n1 && j < first + ROWS; ++j)
        if (!(values[place(h + 1, j + 1, k + 1, n1 + 2, n2 + 2)] > 0))
            x[place(h, j, k, n1, n2)] = (real)nan("");
}

// What each conducting voxel has of faces to voxels that do not conduct, inside the image, and sums of it.
extern "C" __global__ void walls(
    double area0, double area1, double area2, real* out, double* sums, const value* values, int n0, int n1, int n2,
    int around) {
    COLUMN(n0, n2)
    size_t row = n2 + 2, layer = (size_t)(n1 + 2) * row;
    double total = 0;
    for (int j = first; j < n1 && j < first + ROWS; ++j) {
        const value* m = values + ((h + 1) * layer + (j + 1) * row + k + 1);
        double s = 0;
        if (*m > 0) {
            s += area0 * ((h > 0 || (around & 1)) && *(m - layer) == 0);
            s += area0 * ((h < n0 - 1 || (around & 1)) && m[layer] == 0);
            s += area1 * ((j > 0 || (around & 2)) && *(m - row) == 0);
            s += area1 * ((j < n1 - 1 || (around & 2)) && m[row] == 0);
            s += area2 * ((k > 0 || (around & 4)) && *(m - 1) == 0);
            s += area2 * ((k < n2 - 1 || (around & 4)) && m[1] == 0);
        }
        out[place(h, j, k, n1, n2)] = (real)s;
        total += s;
    }
    sums[place(blockIdx.z, h, k, n0, n2)] = total;
}

// Sums of a x, or of a x^2.
extern "C" __global__ void products(
    const real* a, const real* x, int squared, double* sums, int n0, int n1, int n2) {
    COLUMN(n0, n2)
    double total = 0;
    for (int j = first; j < n1 && j < first + ROWS; ++j) {
        size_t i = place(h, j, k, n1, n2);
        total += (double)a[i] * x[i] * (squared ? x[i] : 1);
    }
    sums[place(blockIdx.z, h, k, n0, n2)] = total;
}

// --- of nodes of a graph, a thread for each; edges of node i are ptr[i] to ptr[i + 1] ---

static __device__ real rest(
    int i, const long long* ptr, const int* col, const real* weight, const real* diagonal, const real* b, const real* x)
{
    real s = b[i] - diagonal[i] * x[i];
    for (long long e = ptr[i]; e < ptr[i + 1]; ++e)
        s += weight[e] * x[col[e]];
    return s;
}

// x = omega b / diagonal.
extern "C" __global__ void scaled_nodes(
    real omega, const real* diagonal, const real* b, real* x, int nodes) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < nodes)
        x[i] = diagonal[i] > 0 ? omega * b[i] / diagonal[i] : 0;
}

// out = b - A x.
extern "C" __global__ void rest_of_nodes(
    const long long* ptr, const int* col, const real* weight, const real* diagonal, const real* b, const real* x,
    real* out, int nodes) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < nodes)
        out[i] = rest(i, ptr, col, weight, diagonal, b, x);
}

// Each node of the next level has what its members leave; those of parent c are begin[c] to begin[c + 1].
extern "C" __global__ void gather_nodes(
    const long long* ptr, const int* col, const real* weight, const real* diagonal, const real* b, const real* x,
    const int* begin, const int* member, real* target, int parents) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= parents)
        return;
    real s = 0;
    for (int m = begin[c]; m < begin[c + 1]; ++m)
        s += rest(member[m], ptr, col, weight, diagonal, b, x);
    target[c] = s;
}

// x += P e.
extern "C" __global__ void prolong_nodes(
    const int* parent, const real* e, real* x, int nodes) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < nodes && parent[i] >= 0)
        x[i] += e[parent[i]];
}

// out = x + omega (b - A x) / diagonal, or that is added to it.
extern "C" __global__ void smooth_nodes(
    real omega, const long long* ptr, const int* col, const real* weight, const real* diagonal, const real* b,
    const real* x, int add, real* out, int nodes) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= nodes)
        return;
    real made = x[i];
    if (diagonal[i] > 0)
        made += omega * rest(i, ptr, col, weight, diagonal, b, x) / diagonal[i];
    out[i] = add ? out[i] + made : made;
}

// out = the inverse of the coarsest level's matrix times b.
extern "C" __global__ void solve_nodes(
    const real* inverse, const real* b, real* out, int nodes) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= nodes)
        return;
    real s = 0;
    for (int j = 0; j < nodes; ++j)  // it is symmetric: threads beside each other read what lies side by side
        s += inverse[(size_t)j * nodes + i] * b[j];
    out[i] = s;
}
