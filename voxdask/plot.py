"""Pictures of fields: orthogonal slices, one column per frame. Loads the slices alone, and shows nothing by itself."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from dask.base import compute
from matplotlib.figure import Figure

from voxdask import backend
from voxdask.grid import Grid

_FRAMES = 4
_COLUMN_INCHES = 2.4
_SYMBOLS = {"um": "µm", "angstrom": "Å"}


class ShownFigure(Figure):
    """A figure that notebooks show although pyplot doesn't know it."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


def plot_slices(
    data: xr.Dataset | xr.DataArray,
    *,
    name: str | None = None,
    time: float | Sequence[float] | None = None,
    position: Mapping[str, float] | None = None,
    cmap: str = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
) -> Figure:
    """Draw three orthogonal slices of a field, or a 2-D field whole, one column per frame.

    The slices are cut first and loaded together, so a field larger than memory can be looked at. All share
    one colour scale; voxels have their true proportions. Nothing is shown and no global state of matplotlib
    is touched: save the figure with ``savefig``, or let a notebook display it.

    Parameters
    ----------
    data : Dataset or DataArray
        A field in two or three dimensions on an even grid, with or without a ``time`` dim.
    name : str, optional
        Which variable of a dataset; may be left out where there is only one.
    time : float or sequence of float, optional
        Frames nearest to these times; by default up to four, evenly from first to last.
    position : mapping, optional
        By dim, the coordinate at which to cut, in units of length; by default the middle of each axis.
    cmap : str, default "viridis"
        Name of a matplotlib colour map.
    vmin, vmax : float, optional
        Ends of the colour scale; by default those of the values shown.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError
        If `data` is not an xarray object.
    ValueError
        If `name`, `time` or `position` does not fit the data, or the field has not two or three axes.

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> ds = vd.dataset({"c": np.random.default_rng(0).random((4, 8, 8))}, spacing=0.5, unit="um")
    >>> figure = plot_slices(ds, position={"z": 0.75})
    >>> [axes.get_title() for axes in figure.axes[:3]]
    ['z = 0.75 µm', 'y = 2.25 µm', 'x = 2.25 µm']
    >>> figure.axes[0].get_xlabel()
    'x (µm)'
    """
    field = _choose(data, name)
    grid = Grid.from_dataset(field)
    if grid.ndim not in (2, 3):
        raise ValueError(f"the field has the axes {', '.join(grid.dims)}; slices are of two or three, try .plot()")
    frames = _frames(field, time)
    cuts = _cuts(grid, position or {})
    panels = _load([[frame.isel(cut) for frame in frames] for cut in cuts])
    finite = [panel.values[np.isfinite(panel.values)] for row in panels for panel in row]
    lowest = min((float(v.min()) for v in finite if v.size), default=0.0) if vmin is None else vmin
    highest = max((float(v.max()) for v in finite if v.size), default=1.0) if vmax is None else vmax

    planes = [tuple(dim for dim in grid.dims if dim not in cut) for cut in cuts]
    figure = _canvas(grid, planes, len(frames))
    widest = max(_extent(grid, across)[1] - _extent(grid, across)[0] for _, across in planes)
    heights = [_extent(grid, up)[1] - _extent(grid, up)[0] for up, _ in planes]
    axes = figure.subplots(
        len(cuts), len(frames), squeeze=False, gridspec_kw={"height_ratios": [h / widest for h in heights]}
    )
    for i, (cut, (up, across)) in enumerate(zip(cuts, planes, strict=True)):
        for j, panel in enumerate(panels[i]):
            ax = axes[i, j]
            drawn = ax.imshow(
                panel.transpose(up, across).values,
                cmap=cmap,
                vmin=lowest,
                vmax=highest,
                origin="lower",
                extent=(*_extent(grid, across), *_extent(grid, up)),
                aspect="equal",
                interpolation="nearest",
            )
            ax.set_title(_title(grid, cut, panel if i == 0 else None), fontsize="medium")
            ax.set_xlabel(_with_unit(across, grid.unit))
            if j == 0:
                ax.set_ylabel(_with_unit(up, grid.unit))
            else:
                ax.tick_params(labelleft=False)
    figure.colorbar(drawn, ax=axes, label=_with_unit(str(field.name or ""), field.attrs.get("units")), shrink=0.8)
    return figure


def _choose(data: xr.Dataset | xr.DataArray, name: str | None) -> xr.DataArray:
    if isinstance(data, xr.DataArray):
        field = data
    elif not isinstance(data, xr.Dataset):
        raise TypeError(f"expected an xarray.Dataset or DataArray, got {type(data).__name__}")
    elif name is None and len(data.data_vars) == 1:
        field = next(iter(data.data_vars.values()))
    elif name in data.data_vars:
        field = data[name]
    else:
        raise ValueError(f"name is {name!r}; give one of the variables, {', '.join(map(repr, data.data_vars))}")
    if "phase" in field.dims:
        raise ValueError("the field has a phase dim; choose one, e.g. ds.isel(phase=0)")
    return field


def _frames(field: xr.DataArray, time: float | Sequence[float] | None) -> list[xr.DataArray]:
    if "time" not in field.dims:
        if time is not None:
            raise ValueError(f"time is {time!r}, but the field has no time dim")
        return [field]
    count = field.sizes["time"]
    if time is None:
        chosen = np.unique(np.linspace(0, count - 1, min(count, _FRAMES)).round().astype(int))
        return [field.isel(time=i) for i in chosen]
    if "time" not in field.coords:
        raise ValueError(f"time is {time!r}, but the time dim has no coordinate; choose with .isel(time=...)")
    times = np.asarray(field["time"].values, dtype=float)
    wanted = np.atleast_1d(np.asarray(time, dtype=float))
    slack = 1e-9 * float(np.ptp(times)) if count > 1 else 1e-9 * abs(float(times[0]))
    outside = wanted[~((wanted >= times.min() - slack) & (wanted <= times.max() + slack))]
    if outside.size or not wanted.size:
        raise ValueError(f"time is {time!r}; give times between {times.min():g} and {times.max():g}")
    return [field.isel(time=int(np.abs(times - t).argmin())) for t in wanted]


def _cuts(grid: Grid, position: Mapping[str, float]) -> list[dict[str, int]]:
    """Which sample of which axis each slice holds fast; nothing for a plane."""
    unknown = [dim for dim in position if dim not in grid.dims]
    if unknown:
        raise ValueError(f"position names dim {unknown[0]!r}; the dims of this field are {', '.join(grid.dims)}")
    if grid.ndim == 2:
        if position:
            raise ValueError(f"position is {dict(position)!r}, but a field in two dimensions is drawn whole")
        return [{}]
    cuts = []
    for dim, n, h, x0 in zip(grid.dims, grid.shape, grid.spacing, grid.origin, strict=True):
        lo, hi = _extent(grid, dim)
        where = position.get(dim)
        if where is not None and not lo <= where <= hi:
            raise ValueError(f"position along {dim!r} is {where!r}; give one between {lo:g} and {hi:g}")
        cuts.append({dim: n // 2 if where is None else min(max(round((where - x0) / h), 0), n - 1)})
    return cuts


def _load(panels: list[list[xr.DataArray]]) -> list[list[xr.DataArray]]:
    """All slices at once, so that a chunk which several of them cross is read once."""
    (loaded,) = compute(panels)
    return [[panel.copy(data=backend.to_host(panel.data)) for panel in row] for row in loaded]


def _canvas(grid: Grid, planes: Sequence[tuple[str, ...]], columns: int) -> Figure:
    lengths = {dim: hi - lo for dim in grid.dims for lo, hi in [_extent(grid, dim)]}
    across = max(lengths[plane[1]] for plane in planes)
    tall = sum(min(max(lengths[plane[0]] / across, 0.15), 4.0) for plane in planes)
    width = _COLUMN_INCHES * max(columns, 1.3) + 1.2
    height = 0.9 * _COLUMN_INCHES * tall + 0.65 * len(planes) + 0.3
    return ShownFigure(figsize=(width, height), dpi=120, layout="constrained")


def _extent(grid: Grid, dim: str) -> tuple[float, float]:
    """The outer edges of the voxels along an axis."""
    axis = grid.axis(dim)
    lo = grid.origin[axis] - grid.spacing[axis] / 2
    return lo, lo + grid.shape[axis] * grid.spacing[axis]


def _title(grid: Grid, cut: Mapping[str, int], frame: xr.DataArray | None) -> str:
    parts = []
    if frame is not None and "time" in frame.coords:
        time = frame.coords["time"]
        parts.append(_quantity("t", float(time), time.attrs.get("units")))
    parts += [_quantity(dim, float(grid.coordinate(dim)[i]), grid.unit) for dim, i in cut.items()]
    return "\n".join(parts)


def _quantity(name: str, value: float, unit: str | None) -> str:
    return f"{name} = {value:.4g}" + (f" {_SYMBOLS.get(unit, unit)}" if unit else "")


def _with_unit(name: str, unit: str | None) -> str:
    return f"{name} ({_SYMBOLS.get(unit, unit)})" if unit else name
